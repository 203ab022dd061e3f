//! The device driven as a guest's driver would, over real rings in RAM.

mod connections;
mod delays;
mod garbage;
mod guest;
mod hostile;
mod model;
mod restore;
