//! mesh-server
