//! Keys: who gets through and who does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use pinmesh_transport::{
    AllowList, Authenticator, Context, ContextOptions, Dealer, Endpoint, KeyPair, Message, Poller,
    Role, Router, Security, SharedAllowList, SocketOptions, Token, TransportError,
};

const LIMIT: Duration = Duration::from_secs(60);

fn list(entries: &[(&str, &KeyPair, &str)]) -> AllowList {
    let lines: Vec<String> = entries
        .iter()
        .map(|(name, keys, role)| format!("{name} {} {role}", keys.public()))
        .collect();
    AllowList::parse(&lines.join("\n"), Path::new("authorized_keys")).unwrap()
}

/// A frontend with keys, in whose list the tests' keys may be.
struct Frontend {
    context: Context,
    authenticator: Authenticator,
    router: Router,
    poller: Poller,
    keys: KeyPair,
}

impl Frontend {
    fn new(endpoint: &str, allowed: AllowList) -> Self {
        let context = Context::new(&ContextOptions::default()).unwrap();
        let authenticator = Authenticator::start(&context, SharedAllowList::new(allowed)).unwrap();
        let keys = KeyPair::generate().unwrap();
        let options = with(authenticator.server(&keys, Role::Client));
        let mut router = Router::bind(&context, &endpoint.parse().unwrap(), &options).unwrap();
        let mut poller = Poller::new().unwrap();
        poller.register(&mut router, Token(0)).unwrap();
        Self { context, authenticator, router, poller, keys }
    }

    /// The endpoint for connections of this host.
    fn endpoint(&self) -> Endpoint {
        match self.router.endpoint().port() {
            Some(port) => format!("tcp://127.0.0.1:{port}").parse().unwrap(),
            None => self.router.endpoint().clone(),
        }
    }

    fn connect(&self, keys: &KeyPair) -> Dealer {
        let options = with(Security::client(self.keys.public(), keys));
        Dealer::connect(&self.context, &self.endpoint(), &options).unwrap()
    }

    fn recv(&mut self) -> Message {
        let mut message = Message::default();
        let start = Instant::now();
        while !self.router.recv(&mut message).unwrap() {
            assert!(start.elapsed() < LIMIT, "nothing came");
            let _ = self.poller.wait(&mut [&mut self.router], Some(LIMIT), Duration::ZERO).unwrap();
        }
        message
    }

    /// Waits until the given number of handshakes have been refused, and sees that nothing came.
    fn until_refused(&mut self, at_least: u64) {
        let start = Instant::now();
        while self.authenticator.counters().refused < at_least {
            assert!(start.elapsed() < LIMIT, "nobody was refused");
            assert!(!self.router.recv(&mut Message::default()).unwrap());
            std::thread::yield_now();
        }
    }
}

fn with(security: Security) -> SocketOptions {
    SocketOptions { linger_ms: 0, security: Some(security), ..SocketOptions::default() }
}

fn say(dealer: &mut Dealer, text: &str) {
    let _ = dealer.send(text.as_bytes(), &mut Vec::new()).unwrap();
}

#[test]
fn a_listed_key_gets_through_by_its_name_over_tcp_and_ipc() {
    let folder = tempfile::tempdir().unwrap();
    let ipc = format!("ipc://{}/socket", folder.path().display());
    for endpoint in ["tcp://127.0.0.1:0", &ipc] {
        let keys = KeyPair::generate().unwrap();
        let mut frontend = Frontend::new(endpoint, list(&[("batch-1", &keys, "client")]));
        let mut dealer = frontend.connect(&keys);
        say(&mut dealer, "hello");
        let message = frontend.recv();
        assert_eq!((message.body(), message.user_id()), (&b"hello"[..], Some("batch-1")));
        assert_eq!(frontend.authenticator.counters().accepted, 1);
        assert_eq!(frontend.authenticator.counters().refused, 0);
    }
}

#[test]
fn unlisted_keys_wrong_roles_and_no_keys_get_nowhere() {
    let [listed, worker, stranger] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let allowed = list(&[("batch-1", &listed, "client"), ("farm-1", &worker, "worker")]);
    let mut frontend = Frontend::new("tcp://127.0.0.1:0", allowed);
    let endpoint = frontend.endpoint();

    let mut unlisted = frontend.connect(&stranger);
    say(&mut unlisted, "unlisted");
    frontend.until_refused(1);
    let refusal = frontend.authenticator.take_last_refusal().unwrap();
    assert_eq!(refusal.key, Some(stranger.public()));
    assert_eq!(
        (refusal.address.as_str(), refusal.reason.as_str()),
        ("127.0.0.1", "the key is not listed")
    );
    drop(unlisted);

    let before = frontend.authenticator.counters().refused;
    let mut wrong_role = frontend.connect(&worker);
    say(&mut wrong_role, "wrong role");
    frontend.until_refused(before + 1);

    let plain = SocketOptions { linger_ms: 0, ..SocketOptions::default() };
    let mut keyless = Dealer::connect(&frontend.context, &endpoint, &plain).unwrap();
    say(&mut keyless, "no key");
    let wrong_server = with(Security::client(stranger.public(), &listed));
    let mut misled = Dealer::connect(&frontend.context, &endpoint, &wrong_server).unwrap();
    say(&mut misled, "wrong server");

    // Whoever is listed is heard after them, and nobody else before.
    let mut dealer = frontend.connect(&listed);
    for number in 0..3 {
        say(&mut dealer, &format!("hello {number}"));
        assert_eq!(frontend.recv().body(), format!("hello {number}").as_bytes());
    }
    assert_eq!(frontend.authenticator.counters().accepted, 1);
}

#[test]
fn a_key_counts_from_the_moment_it_is_listed() {
    let keys = KeyPair::generate().unwrap();
    let mut frontend = Frontend::new("tcp://127.0.0.1:0", AllowList::default());
    let mut early = frontend.connect(&keys);
    say(&mut early, "early");
    frontend.until_refused(1);
    drop(early);
    frontend.authenticator.allow_list().replace(list(&[("late", &keys, "client,worker")]));
    let mut dealer = frontend.connect(&keys);
    say(&mut dealer, "late");
    let message = frontend.recv();
    assert_eq!((message.body(), message.user_id()), (&b"late"[..], Some("late")));
}

#[test]
fn with_keys_a_bind_may_be_reached_from_everywhere() {
    let keys = KeyPair::generate().unwrap();
    let mut frontend = Frontend::new("tcp://0.0.0.0:0", list(&[("a", &keys, "client")]));
    let mut dealer = frontend.connect(&keys);
    say(&mut dealer, "hello");
    assert_eq!(frontend.recv().user_id(), Some("a"));
}

#[test]
fn a_client_refuses_a_server_without_the_key_that_it_expects() {
    let keys = KeyPair::generate().unwrap();
    let context = Context::new(&ContextOptions::default()).unwrap();
    let options = SocketOptions::default();
    let endpoint = "tcp://127.0.0.1:0".parse().unwrap();
    let mut open = Router::bind(&context, &endpoint, &options).unwrap();
    let secured = with(Security::client(keys.public(), &keys));
    let mut careful = Dealer::connect(&context, open.endpoint(), &secured).unwrap();
    say(&mut careful, "secret");
    let mut careless = Dealer::connect(&context, open.endpoint(), &options).unwrap();
    let mut poller = Poller::new().unwrap();
    poller.register(&mut open, Token(0)).unwrap();
    for _ in 0..3 {
        say(&mut careless, "public");
        let mut message = Message::default();
        while !open.recv(&mut message).unwrap() {
            let _ = poller.wait(&mut [&mut open], Some(LIMIT), Duration::ZERO).unwrap();
        }
        assert_eq!(message.body(), b"public");
    }
}

#[test]
fn keys_in_the_wrong_place_are_refused() {
    let frontend = Frontend::new("tcp://127.0.0.1:0", AllowList::default());
    let (context, endpoint) = (&frontend.context, frontend.endpoint());
    let client = with(Security::client(frontend.keys.public(), &frontend.keys));
    let server = with(frontend.authenticator.server(&frontend.keys, Role::Client));
    let other = Context::new(&ContextOptions::default()).unwrap();
    let any = "tcp://127.0.0.1:0".parse().unwrap();
    for (error, part) in [
        (Router::bind(context, &any, &client).err(), "Authenticator::server"),
        (Dealer::connect(context, &endpoint, &server).err(), "Security::client"),
        (Router::bind(&other, &any, &server).err(), "another context"),
    ] {
        let error = error.unwrap();
        assert!(matches!(error, TransportError::Security { .. }));
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_context_has_one_authenticator_and_may_have_another_after_it() {
    let context = Context::new(&ContextOptions::default()).unwrap();
    let list = || SharedAllowList::new(AllowList::default());
    let first = Authenticator::start(&context, list()).unwrap();
    assert!(Authenticator::start(&context, list()).is_err());
    drop(first);
    // The first one's socket closes in the background.
    let start = Instant::now();
    while Authenticator::start(&context, list()).is_err() {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
}
