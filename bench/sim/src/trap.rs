//! Traps: the connection breaks at a message that a scenario names.

use pinmesh_protocol::batch::BatchReader;

use crate::fleet::Fleet;
use crate::net::{Direction, Owner, SocketId};
use crate::story;
use crate::world::World;

/// Waits for one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Whose it is, or for whom.
    pub owner: Owner,
    /// The broker at the other end.
    pub broker: usize,
    /// Which way it goes.
    pub direction: Direction,
    /// Words that a command in it has in the story, in this order; the first is the first.
    pub words: Vec<String>,
}

impl Fleet {
    /// Whether the message that is about to arrive is lost in a trap.
    pub(crate) fn spring_trap(&mut self, socket: SocketId, direction: Direction) -> bool {
        let World { now, agenda, net, .. } = &mut self.world;
        if self.traps.is_empty() {
            return false;
        }
        let Some((owner, broker, bytes)) = net.peek(*now, socket, direction) else { return false };
        let mut reader = BatchReader::new(bytes, &[]);
        let mut commands = Vec::new();
        loop {
            let told = match direction {
                Direction::Up => match reader.next_to_broker() {
                    Some(Ok(command)) => story::to_broker(&command, owner, &self.checker),
                    Some(Err(_)) | None => break,
                },
                Direction::Down => match reader.next_from_broker() {
                    Some(Ok(command)) => story::from_broker(&command, owner, &self.checker),
                    Some(Err(_)) | None => break,
                },
            };
            commands.extend(told);
        }
        let place = (owner, broker, direction);
        let caught = self.traps.iter().position(|trap| {
            (trap.owner, trap.broker, trap.direction) == place
                && commands.iter().any(|command| story::fits(command, &trap.words))
        });
        let Some(at) = caught else { return false };
        self.traps.remove(at);
        net.lose((*now, agenda), socket, direction);
        let peer = self.checker.owner_name(owner);
        let commands = commands.join(", ");
        self.world.tell(|| {
            let name = crate::broker::name(broker);
            format!("the link of {peer} to {name} breaks and loses {commands}")
        });
        true
    }
}
