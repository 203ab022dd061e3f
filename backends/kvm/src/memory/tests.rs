//! Random histories of a machine's memory against a model: writes, pages given up, snapshots,
//! restores in any order over the tree, deletions and forks.

use proptest::prelude::*;

use super::PAGE_SIZE;
use super::dirty::DirtyPages;
use super::image::MemoryImage;
use super::ram::Ram;

/// Two words of a dirty bitmap, and a part of a third.
const PAGES: usize = 150;

/// What happens to a machine. Numbers of pages and snapshots are taken modulo what there is.
#[derive(Clone, Debug)]
enum Event {
    /// Writes to one page; zero makes it a page of zeroes again.
    Write {
        page: usize,
        value: u8,
    },
    /// Gives pages up, as the balloon does.
    GiveUp {
        page: usize,
        count: usize,
    },
    Snapshot,
    Restore(usize),
    Delete(usize),
    /// Goes on in a new machine from a snapshot; the old one is gone.
    Fork(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..PAGES, 0..4_u8).prop_map(|(page, value)| Event::Write { page, value }),
        1 => (0..PAGES, 1..20_usize).prop_map(|(page, count)| Event::GiveUp { page, count }),
        3 => Just(Event::Snapshot),
        4 => any::<usize>().prop_map(Event::Restore),
        1 => any::<usize>().prop_map(Event::Delete),
        1 => any::<usize>().prop_map(Event::Fork),
    ]
}

/// The first byte of each page, which says all: a page holds one value.
type Model = [u8; PAGES];

/// A machine's memory without the machine. What a guest or a device writes is noted in the VMM's
/// own bitmap, which is united with KVM's log and treated alike from there on.
struct Machine {
    ram: Ram,
    dirty: DirtyPages,
    image: Option<MemoryImage>,
    model: Model,
}

impl Machine {
    fn new(ram: Ram) -> Self {
        Self { ram, dirty: DirtyPages::new(PAGES), image: None, model: [0; PAGES] }
    }

    fn write(&mut self, page: usize, value: u8) {
        // SAFETY: a whole page of memory that nobody else knows.
        unsafe { self.ram.page(page).write_bytes(value, PAGE_SIZE) };
        self.ram.written().mark(page * PAGE_SIZE, PAGE_SIZE);
        self.model[page] = value;
    }

    fn give_up(&mut self, page: usize, count: usize) {
        let count = count.min(PAGES - page);
        let (offset, length) = (page * PAGE_SIZE, count * PAGE_SIZE);
        // SAFETY: nobody else knows the memory.
        unsafe { self.ram.reclaim(offset, length) }.unwrap();
        self.ram.written().mark(offset, length);
        self.model[page..page + count].fill(0);
    }

    fn snapshot(&mut self) -> (MemoryImage, Model) {
        self.dirty.collect_written(&self.ram);
        // SAFETY: nobody else knows the memory.
        let image = unsafe {
            match &self.image {
                None => MemoryImage::of_base(self.ram.freeze().unwrap()),
                Some(image) => image.above(&self.ram, &self.dirty).unwrap(),
            }
        };
        self.image = Some(image.clone());
        (image, self.model)
    }

    fn restore(&mut self, (image, model): &(MemoryImage, Model)) {
        self.dirty.collect_written(&self.ram);
        if let Some(now) = &self.image {
            self.dirty.add_differences(now.index(), image.index());
        }
        // SAFETY: nobody else knows the memory.
        unsafe { image.put_back(&self.ram, &self.dirty) };
        self.image = Some(image.clone());
        self.model = *model;
    }

    fn fork((image, model): &(MemoryImage, Model)) -> Self {
        let ram = Ram::reserve(PAGES * PAGE_SIZE).unwrap();
        // SAFETY: nobody else knows the memory.
        unsafe { image.fill(&ram) }.unwrap();
        Self { image: Some(image.clone()), model: *model, ..Self::new(ram) }
    }

    #[track_caller]
    fn check(&self) {
        for page in 0..PAGES {
            // SAFETY: a whole page of memory that nobody else knows.
            let bytes = unsafe { std::slice::from_raw_parts(self.ram.page(page), PAGE_SIZE) };
            let value = self.model[page];
            assert!(bytes == [value; PAGE_SIZE], "page {page} does not hold {value}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_agrees_with_the_model(
        events in prop::collection::vec(event(), 50..400)
    ) {
        let mut machine = Machine::new(Ram::new(PAGES * PAGE_SIZE).unwrap());
        let mut snapshots = Vec::new();
        for event in events {
            let count = snapshots.len().max(1);
            match event {
                Event::Write { page, value } => machine.write(page, value),
                Event::GiveUp { page, count } => machine.give_up(page, count),
                Event::Snapshot => snapshots.push(machine.snapshot()),
                Event::Restore(which) => {
                    if let Some(snapshot) = snapshots.get(which % count) {
                        machine.restore(snapshot);
                        machine.check();
                    }
                }
                Event::Delete(which) if snapshots.len() > 1 => {
                    snapshots.remove(which % count);
                }
                Event::Delete(_) => {}
                Event::Fork(which) => {
                    if let Some(snapshot) = snapshots.get(which % count) {
                        machine = Machine::fork(snapshot);
                        machine.check();
                    }
                }
            }
        }
        machine.check();
        // All that are left, in both directions.
        let order: Vec<usize> = (0..snapshots.len()).chain((0..snapshots.len()).rev()).collect();
        for which in order {
            machine.restore(&snapshots[which]);
            machine.check();
        }
    }
}

/// A chain of thousands is as good as one, and can be dropped.
#[test]
fn a_long_chain_goes_back_to_its_first() {
    let mut machine = Machine::new(Ram::new(PAGES * PAGE_SIZE).unwrap());
    machine.write(3, 9);
    let first = machine.snapshot();
    for round in 0..5000_usize {
        machine.write(round % PAGES, u8::try_from(round % 251).unwrap());
        drop(machine.snapshot());
    }
    machine.check();
    machine.restore(&first);
    machine.check();
}
