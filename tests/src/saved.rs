//! Saved snapshots that can be asked whether they are whole.

/// A script that loads the snapshot in the directory `arg[1]` and prints its number, if it holds
/// what its name promises: `NUMBER CHECKSUM`, of which the guest's store has the number.
pub const READER: &str = "
    local snap <close> = require('vmoon').load(arg[1])
    local vm <close> = snap:fork()
    local number, sum = snap.name:match '^(%d+) (%S+)$'
    assert(vm:succeed 'get number' == number .. '\\n', 'the number')
    assert(vm:succeed('checksum'):match '%S+' == sum, 'the checksum')
    print(number)";
