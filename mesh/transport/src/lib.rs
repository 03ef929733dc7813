//! mesh/transport
