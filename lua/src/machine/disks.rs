//! The method that writes a disk to an image.

use super::Machine;
use crate::class::{Class, Results};

/// What is wanted as the path of an image.
pub(crate) const PATH: &str = "the path of an image";

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:commit_disk", Results::None, async |_, this: Machine, arguments| {
        let (number, path) = (arguments.count(0, None)?, arguments.path(1, PATH)?);
        arguments.options(2, &[])?;
        Ok(this.vm().commit_disk(number, &path).await?)
    })
}
