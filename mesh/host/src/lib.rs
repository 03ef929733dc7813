//! mesh/host
