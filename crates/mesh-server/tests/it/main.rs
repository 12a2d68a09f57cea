//! The control plane as its agents and clients meet it: the real server, the real store in a
//! temporary folder, the real protocols over loopback. Only Ray is played.

mod agent;
mod client;
mod support;

mod blobs;
mod faults;
mod links;
mod restarts;
mod tasks;
