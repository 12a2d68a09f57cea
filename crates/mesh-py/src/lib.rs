//! mesh-py
