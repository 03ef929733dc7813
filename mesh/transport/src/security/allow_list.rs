//! Who may connect: `authorized_keys`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::Result;
use crate::error::TransportError;
use crate::security::keys::{PublicKey, read_guarded};

/// Most entries of a list.
const ENTRIES_MAX: usize = 100_000;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a key may connect as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// At the frontend: submit tasks.
    Client,
    /// At the backend: run tasks. Workers and supervisors.
    Worker,
}

impl Role {
    const ALL: [Self; 2] = [Self::Client, Self::Worker];

    /// The word for it in a list.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }

    /// The ZAP domain of the sockets that it may connect to.
    pub(super) const fn domain(self) -> &'static str {
        match self {
            Self::Client => "pinmesh-client",
            Self::Worker => "pinmesh-worker",
        }
    }
}

/// An entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// Whose key it is: the user id of messages that come by it. Several keys may have one name.
    pub name: String,
    /// As what it may connect.
    pub roles: Vec<Role>,
}

/// What a new list changes, in keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListChanges {
    /// That it holds.
    pub keys: usize,
    /// That the old one did not hold.
    pub added: usize,
    /// With another name or role.
    pub changed: usize,
    /// That only the old one held.
    pub removed: usize,
}

/// The keys that may connect. One a line: name, public key, and role, separated by spaces; a role
/// is `client`, `worker` or `client,worker`. Empty lines and those that start with `#` are skipped.
///
/// ```
/// use pinmesh_transport::AllowList;
///
/// let text = "# name  key  role\nbatch-1 Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID client\n";
/// assert_eq!(AllowList::parse(text, "authorized_keys".as_ref())?.len(), 1);
/// # Ok::<(), pinmesh_transport::TransportError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AllowList {
    keys: HashMap<PublicKey, AuthorizedKey>,
}

impl AllowList {
    /// Reads the list from a file.
    ///
    /// # Errors
    /// It cannot be read, others than its owner may change it, or a line is wrong.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&read_guarded(path, 0o022, "others to read at most: chmod 644")?, path)
    }

    /// Reads the list from text; `path` is for messages.
    ///
    /// # Errors
    /// A line is wrong; the message names it.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            list.add_line(line).map_err(|reason| TransportError::KeyFile {
                path: path.to_owned(),
                line: Some(index + 1),
                reason,
            })?;
        }
        Ok(list)
    }

    fn add_line(&mut self, line: &str) -> Result<(), String> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, key, roles] = fields[..] else {
            let count = fields.len();
            return Err(format!("a line is `name key role`, this one has {count} fields"));
        };
        let in_name =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'@' | b'-');
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(in_name) {
            return Err(format!(
                "name `{name}`: letters, digits and `._@-` only, at most {NAME_BYTES_MAX}"
            ));
        }
        let key: PublicKey = key.parse().map_err(|error| format!("{error}"))?;
        let roles = roles.split(',').map(parse_role).collect::<Result<Vec<Role>, String>>()?;
        if self.keys.len() >= ENTRIES_MAX {
            return Err(format!("a list has at most {ENTRIES_MAX} keys"));
        }
        match self.keys.insert(key, AuthorizedKey { name: name.into(), roles }) {
            None => Ok(()),
            Some(other) => Err(format!("the key is listed already, for `{}`", other.name)),
        }
    }

    /// The entry of a key.
    #[must_use]
    pub fn entry(&self, key: &PublicKey) -> Option<&AuthorizedKey> {
        self.keys.get(key)
    }

    /// What has changed since an older list.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> ListChanges {
        let is_changed = |(key, entry): &(&PublicKey, &AuthorizedKey)| {
            older.entry(key).is_some_and(|before| before != *entry)
        };
        let added = self.keys.keys().filter(|key| older.entry(key).is_none()).count();
        ListChanges {
            keys: self.len(),
            added,
            changed: self.keys.iter().filter(is_changed).count(),
            removed: older.len() + added - self.len(),
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, so that nobody may connect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::ALL
        .into_iter()
        .find(|role| role.name() == text)
        .ok_or_else(|| format!("role `{text}`: must be `client`, `worker` or `client,worker`"))
}

/// A list that can be exchanged while it is in use. Cloning shares it.
///
/// A new list counts for new connections; libzmq has no way to end those that stand.
#[derive(Clone, Debug)]
pub struct SharedAllowList {
    path: Option<PathBuf>,
    list: Arc<RwLock<AllowList>>,
}

impl SharedAllowList {
    /// A list that is in no file.
    #[must_use]
    pub fn new(list: AllowList) -> Self {
        Self { path: None, list: Arc::new(RwLock::new(list)) }
    }

    /// Reads the list from a file, from which it can be [reloaded](Self::reload).
    ///
    /// # Errors
    /// As [`AllowList::load`].
    pub fn load(path: &Path) -> Result<Self> {
        let list = Arc::new(RwLock::new(AllowList::load(path)?));
        Ok(Self { path: Some(path.to_owned()), list })
    }

    /// Reads the file again and tells what has changed. On an error the old list stays.
    ///
    /// # Errors
    /// As [`AllowList::load`].
    pub fn reload(&self) -> Result<ListChanges> {
        let Some(path) = &self.path else {
            return Ok(ListChanges { keys: self.read(AllowList::len), ..ListChanges::default() });
        };
        let list = AllowList::load(path)?;
        let changes = self.read(|older| list.changes_since(older));
        self.replace(list);
        Ok(changes)
    }

    /// Exchanges the list.
    pub fn replace(&self, list: AllowList) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
    }

    /// Looks something up in the list.
    pub fn read<T>(&self, look_up: impl FnOnce(&AllowList) -> T) -> T {
        look_up(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_list_holds_names_keys_and_roles() {
        let text = format!(
            "# keys\n\nbatch {} client\n  farm.1 {} worker  \nboth {} client,worker\n",
            key(1),
            key(2),
            key(3)
        );
        let list = AllowList::parse(&text, Path::new("keys")).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list.entry(&key(2)).unwrap().name, "farm.1");
        assert_eq!(list.entry(&key(3)).unwrap().roles, Role::ALL);
        assert_eq!(list.entry(&key(4)), None);
    }

    #[test]
    fn a_wrong_line_is_named_with_its_file() {
        let good = format!("a {} client", key(1));
        for (line, reason) in [
            ("a".into(), "this one has 1 fields"),
            (format!("{good} now"), "this one has 4 fields"),
            (format!("a {} admin", key(2)), "role `admin`"),
            (format!("a {} client,", key(2)), "role ``"),
            (format!("a/b {} client", key(2)), "name `a/b`"),
            ("a 0123 client".into(), "a key has 40 characters, this has 4"),
            (format!("b {} worker", key(1)), "listed already, for `a`"),
        ] {
            let text = format!("{good}\n{line}\n");
            let message = AllowList::parse(&text, Path::new("/x/keys")).unwrap_err().to_string();
            assert!(message.contains("`/x/keys` line 2"), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_reload_that_fails_keeps_the_old_list() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_keys");
        let write = |text: String| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        };
        write(format!("a {} client\n", key(1)));
        let list = SharedAllowList::load(&path).unwrap();
        write("nonsense".into());
        assert!(list.reload().unwrap_err().to_string().contains("line 1"));
        assert!(list.read(|list| list.entry(&key(1)).is_some()));
        write(format!("a {} client\nb {} worker", key(1), key(2)));
        let changes = ListChanges { keys: 2, added: 1, changed: 0, removed: 0 };
        assert_eq!(list.reload().unwrap(), changes);
        write(format!("a {} worker", key(1)));
        let changes = ListChanges { keys: 1, added: 0, changed: 1, removed: 1 };
        assert_eq!(list.reload().unwrap(), changes);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(list.reload().unwrap_err().to_string().contains("chmod 644"));
        assert_eq!(list.read(AllowList::len), 1);
    }
}
