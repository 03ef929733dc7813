//! Payloads of the tasks of a load, and what the outputs must be.

use std::time::Duration;

/// Bytes of a payload that hold the task's number.
const NUMBER_BYTES: usize = 8;

/// What each task of a load carries.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// A pattern that begins with the task's number. The output must be the same if it is an echo.
    Numbered {
        /// What each payload starts from: the number is written over its beginning.
        template: Vec<u8>,
        /// Whether the output is checked.
        is_echo: bool,
    },
    /// The same for all: how long the service is to take, as the ready-made services read it.
    Time(Vec<u8>),
}

impl Payload {
    /// Of so many bytes.
    pub(crate) fn numbered(bytes: usize, is_echo: bool) -> Self {
        // Not all zeros, so that an output of zeros is not taken for an echo.
        let template = (0..bytes).map(|at| (at % 251) as u8).collect();
        Self::Numbered { template, is_echo }
    }

    /// Of a service that is told how long to take.
    pub(crate) fn time(service_time: Duration) -> Self {
        Self::Time(format!("{}ns", service_time.as_nanos()).into_bytes())
    }

    /// Bytes of one.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Numbered { template, .. } => template.len(),
            Self::Time(text) => text.len(),
        }
    }

    /// That of a task.
    pub(crate) fn of(&self, number: u64) -> Vec<u8> {
        match self {
            Self::Time(text) => text.clone(),
            Self::Numbered { template, .. } => {
                let mut payload = template.clone();
                let length = payload.len().min(NUMBER_BYTES);
                payload[..length].copy_from_slice(&number.to_le_bytes()[..length]);
                payload
            }
        }
    }

    /// Whether an output is what that task asks for: of an echo, the length and the number of its
    /// input.
    pub(crate) fn is_answered_by(&self, output: &[u8], number: u64) -> bool {
        match self {
            Self::Numbered { template, is_echo: true } => {
                let length = template.len().min(NUMBER_BYTES);
                output.len() == template.len() && output[..length] == number.to_le_bytes()[..length]
            }
            Self::Numbered { is_echo: false, .. } | Self::Time(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_has_the_length_and_the_number_of_its_input() {
        let payload = Payload::numbered(64, true);
        let output = payload.of(7);
        assert_eq!((output.len(), payload.bytes()), (64, 64));
        assert!(payload.is_answered_by(&output, 7));
        assert!(!payload.is_answered_by(&output, 8));
        assert!(!payload.is_answered_by(&output[..63], 7));
        assert!(!payload.is_answered_by(&[], 7));
        assert!(Payload::numbered(0, true).is_answered_by(&[], 7));
        let short = Payload::numbered(3, true);
        assert_eq!(short.of(0x201), [1, 2, 0]);
        assert!(short.is_answered_by(&[1, 2, 0], 0x201));
        assert!(Payload::numbered(64, false).is_answered_by(&[], 7));
    }

    #[test]
    fn a_time_is_told_in_nanoseconds() {
        let payload = Payload::time(Duration::from_micros(50));
        assert_eq!(payload.of(3), b"50000ns");
        assert!(payload.is_answered_by(&[], 3));
    }
}
