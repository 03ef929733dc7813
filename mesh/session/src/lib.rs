//! mesh/session
