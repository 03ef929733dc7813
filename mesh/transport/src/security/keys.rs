//! CURVE keys: 32 bytes each, written as 40 characters of Z85 (ZeroMQ RFC 32).

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::{fmt, io};

use crate::Result;
use crate::error::TransportError;
use crate::raw::{self, CurveText};
use crate::security::check_curve;

const KEY_BYTES: usize = 32;
const KEY_CHARS: usize = 40;
/// How a file of [`KeyPair::save`] begins.
const SECRET_HEADING: &str = "# pinmesh secret key";
/// The longest file of keys that is read.
const KEY_FILE_BYTES_MAX: u64 = 16 << 20;

const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// A public key. Its text may go anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// A key from its bytes; None if there are not 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A key from its text, or from a file that holds it on one line; lines that start with `#` are
    /// comments there.
    ///
    /// # Errors
    /// It is neither, or the file holds a secret key.
    pub fn text_or_file(text: &str) -> Result<Self> {
        let no_key = match text.parse() {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        let path = Path::new(text);
        let content = read_guarded(path, 0o022, "others to read at most: chmod 644").map_err(
            |error| match error {
                TransportError::File { source, .. } => TransportError::Key {
                    reason: format!(
                        "`{text}` is neither a public key ({no_key}) nor a file that can be read \
                         ({source})"
                    ),
                },
                other => other,
            },
        )?;
        let found = if content.starts_with(SECRET_HEADING) {
            Err("it holds a secret key, which stays where it is; give the public one, which \
                 `pinmesh keygen` printed"
                .into())
        } else {
            only_line(&content).and_then(|line| decode(line.as_bytes())).map(Self)
        };
        found.map_err(|reason| TransportError::KeyFile { path: path.into(), line: None, reason })
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self> {
        decode(text.as_bytes()).map(Self).map_err(|reason| TransportError::Key { reason })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(&self.0).iter().try_for_each(|&byte| fmt::Write::write_char(f, byte.into()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A secret key and its public half. The secret is overwritten when it is dropped, never printed.
#[derive(Clone)]
pub struct KeyPair {
    public: PublicKey,
    secret: Secret,
}

#[derive(Clone)]
struct Secret([u8; KEY_BYTES]);

impl Drop for Secret {
    fn drop(&mut self) {
        raw::wipe(&mut self.0);
    }
}

impl KeyPair {
    /// A new pair.
    ///
    /// # Errors
    /// This libzmq has no CURVE.
    pub fn generate() -> Result<Self> {
        check_curve()?;
        let (_, mut secret) = raw::curve_keypair().map_err(|_| TransportError::CurveMissing)?;
        let pair = Self::from_secret_text(&secret[..KEY_CHARS]);
        raw::wipe(&mut secret);
        pair.map_err(|reason| TransportError::Key { reason })
    }

    /// Reads a secret key from a file: one line of 40 characters, and lines that start with `#`.
    ///
    /// # Errors
    /// The file cannot be read, others than its owner may read or change it, it holds no key, or
    /// this libzmq has no CURVE.
    pub fn load(path: &Path) -> Result<Self> {
        check_curve()?;
        let text = read_guarded(path, 0o077, "its owner only: chmod 600")?;
        let pair = only_line(&text).and_then(|line| Self::from_secret_text(line.as_bytes()));
        raw::wipe(&mut text.into_bytes());
        pair.map_err(|reason| TransportError::KeyFile { path: path.into(), line: None, reason })
    }

    /// Writes the secret key to a new file that only its owner may read.
    ///
    /// # Errors
    /// The file is there already or cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed =
            |action| move |source| TransportError::File { action, path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed("create"))?;
        let mut secret = encode(&self.secret.0);
        let written =
            writeln!(file, "{SECRET_HEADING}; keep it to yourself. Public key:\n# {}", self.public)
                .and_then(|()| file.write_all(&secret))
                .and_then(|()| file.write_all(b"\n"))
                .and_then(|()| file.sync_all());
        raw::wipe(&mut secret);
        written.map_err(failed("write"))
    }

    /// The public half, which the other side is given.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn secret_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.secret.0
    }

    fn from_secret_text(text: &[u8]) -> Result<Self, String> {
        let secret = Secret(decode(text)?);
        let mut ended: CurveText = [0; KEY_CHARS + 1];
        ended[..KEY_CHARS].copy_from_slice(text);
        let public = raw::curve_public(&ended);
        raw::wipe(&mut ended);
        let public = public.map_err(raw::Errno::message)?;
        Ok(Self { public: PublicKey(decode(&public[..KEY_CHARS])?), secret })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, secret)", self.public)
    }
}

/// Reads a file whose mode has none of the `forbidden` bits.
pub(super) fn read_guarded(path: &Path, forbidden: u32, remedy: &str) -> Result<String> {
    let failed = |source| TransportError::File { action: "read", path: path.to_owned(), source };
    let bad = |reason| TransportError::KeyFile { path: path.to_owned(), line: None, reason };
    let file = std::fs::File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.mode() & forbidden != 0 {
        let mode = found.mode() & 0o777;
        return Err(bad(format!("its mode is {mode:03o}; it must be for {remedy}")));
    }
    if found.len() > KEY_FILE_BYTES_MAX {
        return Err(bad(format!("it has {} bytes, which is no file of keys", found.len())));
    }
    io::read_to_string(file).map_err(failed)
}

fn only_line(text: &str) -> Result<&str, String> {
    let mut lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line),
        (None, _) => {
            Err("it holds no key; one line of it must be the 40 characters of a key".into())
        }
        (Some(_), Some(_)) => Err("it must hold one key, on one line".into()),
    }
}

fn encode(key: &[u8; KEY_BYTES]) -> [u8; KEY_CHARS] {
    let mut text = [0; KEY_CHARS];
    for (chunk, digits) in key.chunks_exact(4).zip(text.chunks_exact_mut(5)) {
        let mut value = chunk.iter().fold(0u32, |value, &byte| value << 8 | u32::from(byte));
        for digit in digits.iter_mut().rev() {
            *digit = Z85[(value % 85) as usize];
            value /= 85;
        }
    }
    text
}

/// libzmq's own decoder takes characters that are no Z85 and groups that overflow.
fn decode(text: &[u8]) -> Result<[u8; KEY_BYTES], String> {
    if text.len() != KEY_CHARS {
        return Err(format!("a key has {KEY_CHARS} characters, this has {}", text.len()));
    }
    let mut key = [0; KEY_BYTES];
    for (group, (digits, chunk)) in text.chunks_exact(5).zip(key.chunks_exact_mut(4)).enumerate() {
        let mut value = 0u64;
        for (index, digit) in digits.iter().enumerate() {
            let found = Z85.iter().position(|known| known == digit).ok_or_else(|| {
                format!("character {} of the key is no Z85", group * 5 + index + 1)
            })?;
            value = value * 85 + found as u64;
        }
        let value = u32::try_from(value)
            .map_err(|_| format!("characters from {} of the key are no Z85", group * 5 + 1))?;
        chunk.copy_from_slice(&value.to_be_bytes());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_agree_with_libzmq() {
        for byte in [0u8, 1, 0x7f, 0xff] {
            let key = PublicKey(std::array::from_fn(|i| byte.wrapping_mul(i as u8 + 1)));
            assert_eq!(key.to_string(), zmq::z85_encode(&key.0).unwrap());
            assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        let good = PublicKey([7; KEY_BYTES]).to_string();
        for (text, reason) in [
            (String::new(), "a key has 40 characters, this has 0"),
            (format!("{good}0"), "this has 41"),
            (format!("{}~", &good[..39]), "character 40 of the key is no Z85"),
            (format!("{}é", &good[..38]), "character 39 of the key is no Z85"),
            (format!("#####{}", &good[5..]), "characters from 1 of the key are no Z85"),
        ] {
            let message = text.parse::<PublicKey>().unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_saved_key_loads_again_and_only_if_others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.key");
        let keys = KeyPair::generate().unwrap();
        keys.save(&path).unwrap();
        assert_eq!(KeyPair::load(&path).unwrap().public(), keys.public());
        assert_eq!(KeyPair::load(&path).unwrap().secret_bytes(), keys.secret_bytes());
        assert!(keys.save(&path).is_err(), "a key is never overwritten");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let message = KeyPair::load(&path).unwrap_err().to_string();
        assert!(message.contains("broker.key") && message.contains("mode is 640"), "{message}");
        assert!(message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let keys = KeyPair::generate().unwrap();
        let secret = String::from_utf8(encode(keys.secret_bytes()).to_vec()).unwrap();
        assert!(!format!("{keys:?}").contains(&secret));
    }
}
