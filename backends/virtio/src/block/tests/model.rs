//! Machines that write, take snapshots, go back to them and are forked from them, beside plain
//! arrays of bytes.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use vmoon_core::spec::DiskMode;

use super::device::{Guest, SECTORS, image, open};
use crate::block::BlockState;
use crate::device::{Device, RestoreMode};
use crate::state::DeviceState;

/// What happens next. Numbers choose among those that exist, by remainder.
#[derive(Clone, Debug)]
enum Step {
    Write { machine: usize, sector: u64, count: u64, byte: u8 },
    Read { machine: usize, sector: u64, count: u64 },
    Clear { machine: usize, sector: u64, count: u64, discard: bool },
    Snapshot { machine: usize },
    Restore { machine: usize, snapshot: usize },
    Fork { snapshot: usize },
    Delete { snapshot: usize },
    Close { machine: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let any_one = any::<u8>().prop_map(usize::from);
    let range = (0..SECTORS, 1_u64..20);
    prop_oneof![
        6 => (any_one.clone(), range.clone(), any::<u8>()).prop_map(
            |(machine, (sector, count), byte)| Step::Write { machine, sector, count, byte }),
        3 => (any_one.clone(), range.clone()).prop_map(
            |(machine, (sector, count))| Step::Read { machine, sector, count }),
        2 => (any_one.clone(), range.clone(), any::<bool>()).prop_map(
            |(machine, (sector, count), discard)| Step::Clear { machine, sector, count, discard }),
        3 => any_one.clone().prop_map(|machine| Step::Snapshot { machine }),
        3 => (any_one.clone(), any_one.clone()).prop_map(
            |(machine, snapshot)| Step::Restore { machine, snapshot }),
        1 => any_one.clone().prop_map(|snapshot| Step::Fork { snapshot }),
        1 => any_one.clone().prop_map(|snapshot| Step::Delete { snapshot }),
        1 => any_one.prop_map(|machine| Step::Close { machine }),
    ]
}

/// A machine's disk and all that it should hold.
struct Machine {
    guest: Guest,
    bytes: Vec<u8>,
}

struct Snapshot {
    state: DeviceState,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct World {
    machines: Vec<Machine>,
    snapshots: Vec<Snapshot>,
}

fn bytes(sector: u64, count: u64) -> std::ops::Range<usize> {
    let at = |sector: u64| usize::try_from(sector.min(SECTORS) * 512).unwrap();
    at(sector)..at(sector + count)
}

impl World {
    fn take(
        &mut self,
        step: &Step,
        base: &[u8],
        fresh: impl Fn() -> Guest,
    ) -> Result<(), TestCaseError> {
        let Self { machines, snapshots } = self;
        let pick = |number: usize, among: usize| (among > 0).then(|| number % among.max(1));
        match *step {
            Step::Write { machine, sector, count, byte } => {
                let Some(machine) = pick(machine, machines.len()) else { return Ok(()) };
                let Machine { guest, bytes: expected } = &mut machines[machine];
                let range = bytes(sector, count);
                prop_assert_eq!(guest.write(sector, &vec![byte; range.len()]), 0);
                expected[range].fill(byte);
            }
            Step::Read { machine, sector, count } => {
                let Some(machine) = pick(machine, machines.len()) else { return Ok(()) };
                let Machine { guest, bytes: expected } = &mut machines[machine];
                let range = bytes(sector, count);
                let sectors = u32::try_from(range.len() / 512).unwrap();
                prop_assert_eq!(&guest.read(sector, sectors).unwrap(), &expected[range]);
            }
            Step::Clear { machine, sector, count, discard } => {
                let Some(machine) = pick(machine, machines.len()) else { return Ok(()) };
                let Machine { guest, bytes: expected } = &mut machines[machine];
                let range = bytes(sector, count);
                prop_assert_eq!(guest.clear(discard, sector, range.len() / 512), 0);
                if !discard {
                    expected[range].fill(0);
                    return Ok(());
                }
                // What is beneath shows again, in whole clusters.
                let end = if range.end == base.len() {
                    base.len().next_multiple_of(4096)
                } else {
                    range.end
                };
                let whole = range.start.next_multiple_of(4096)..(end / 4096 * 4096).min(base.len());
                if !whole.is_empty() {
                    expected[whole.clone()].copy_from_slice(&base[whole]);
                }
            }
            Step::Snapshot { machine } => {
                let Some(machine) = pick(machine, machines.len()) else { return Ok(()) };
                let Machine { guest, bytes } = &machines[machine];
                snapshots.push(Snapshot { state: guest.device.save(), bytes: bytes.clone() });
            }
            Step::Restore { machine, snapshot } => {
                let picked = (pick(machine, machines.len()), pick(snapshot, snapshots.len()));
                let (Some(machine), Some(snapshot)) = picked else { return Ok(()) };
                let Snapshot { state, bytes } = &snapshots[snapshot];
                machines[machine].guest.device.restore(state, RestoreMode::InPlace).unwrap();
                machines[machine].bytes.clone_from(bytes);
            }
            Step::Fork { snapshot } => {
                let Some(snapshot) = pick(snapshot, snapshots.len()) else { return Ok(()) };
                let Snapshot { state, bytes } = &snapshots[snapshot];
                let mut guest = fresh();
                guest.device.restore(state, RestoreMode::Fresh).unwrap();
                machines.push(Machine { guest, bytes: bytes.clone() });
            }
            Step::Delete { snapshot } => {
                let Some(snapshot) = pick(snapshot, snapshots.len()) else { return Ok(()) };
                snapshots.swap_remove(snapshot);
            }
            // The last one stays, to go on with.
            Step::Close { machine } if machines.len() > 1 => {
                machines.swap_remove(machine % machines.len());
            }
            Step::Close { .. } => {}
        }
        Ok(())
    }

    /// Every disk, as its host end reads it, and what is not listed as data being zero.
    fn check(&self) -> Result<(), TestCaseError> {
        let reader = &self.machines[0].guest.device;
        let live =
            self.machines.iter().map(|machine| (machine.guest.device.save(), &machine.bytes));
        let frozen =
            self.snapshots.iter().map(|snapshot| (snapshot.state.clone(), &snapshot.bytes));
        for (state, expected) in live.chain(frozen) {
            let DeviceState::Block(state) = state else { panic!("a disk's") };
            let contents = reader.host().contents(&state).unwrap();
            let mut found = vec![0; expected.len()];
            for range in contents.data().unwrap() {
                let places = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
                contents.read(range.start, &mut found[places[0]..places[1]]).unwrap();
            }
            prop_assert!(&found == expected);
            prop_assert_eq!(survives_a_file(&state), state);
        }
        Ok(())
    }
}

fn survives_a_file(state: &BlockState) -> BlockState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn disks_are_arrays_of_bytes_with_snapshots(steps in prop::collection::vec(step(), 1..60)) {
        let file = image();
        let fresh = || Guest::new(open(file.path(), false, DiskMode::Overlay).unwrap());
        let bytes = std::fs::read(file.path()).unwrap();
        let mut world = World::default();
        world.machines.push(Machine { guest: fresh(), bytes: bytes.clone() });
        for step in &steps {
            world.take(step, &bytes, fresh)?;
        }
        world.check()?;
        prop_assert_eq!(std::fs::read(file.path()).unwrap(), bytes, "the image stays as it is");
    }
}
