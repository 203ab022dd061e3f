//! The device driven as a guest's driver would, above a real file.

mod device;
mod model;
