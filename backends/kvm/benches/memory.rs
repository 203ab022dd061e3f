//! Layers and indexes of frozen memory: what snapshots and restores spend beside KVM's calls.
//!
//! The modules are private to the crate, so they are compiled into this program once more.

#![allow(dead_code, unused_imports, reason = "neither all of the modules nor their tests run here")]
#![allow(missing_docs, reason = "a program")]

use divan::Bencher;
use rustix::mm::MapFlags;

use memory::PAGE_SIZE;
use memory::index::PageIndex;
use memory::layer::LayerBuilder;
use memory::mapping::Mapping;

#[path = "../src/memory"]
mod memory {
    pub(crate) const PAGE_SIZE: usize = 4096;

    pub(crate) mod index;
    pub(crate) mod layer;
    pub(crate) mod mapping;
}

/// Pages of 512 MiB.
const PAGES: usize = 131_072;

/// How many of them are dirty.
const DIRTY: &[usize] = &[10, 200, 5_000];

fn main() {
    divan::main();
}

/// Page numbers all over memory, none twice.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    // Odd, so that its multiples visit each page of a power of two once.
    (0..count).map(|index| index * 81_007 % PAGES)
}

fn ram() -> Mapping {
    Mapping::anonymous(PAGES * PAGE_SIZE, MapFlags::NORESERVE).expect("memory can be mapped")
}

/// A layer with copies of these pages, entered into an index above `beneath`.
fn snapshot(ram: &Mapping, count: usize, beneath: &PageIndex) -> (PageIndex, LayerBuilder) {
    let mut layer = LayerBuilder::new(count).expect("memory can be mapped");
    let mut index = beneath.clone();
    for page in scattered(count) {
        // SAFETY: a whole page of the mapping, which nobody writes to.
        let contents = unsafe { layer.push(ram.start().add(page * PAGE_SIZE)) };
        index.insert(page, contents);
    }
    (index, layer)
}

/// Copying dirty pages out and entering them.
#[divan::bench(args = DIRTY)]
fn copy_out_and_enter(bencher: Bencher<'_, '_>, count: usize) {
    let ram = ram();
    let empty = PageIndex::new(PAGES);
    let (beneath, _layer) = snapshot(&ram, 20_000, &empty);
    bencher.bench_local(|| snapshot(&ram, count, &beneath));
}

/// Finding the pages in which a snapshot differs from the one beneath it.
#[divan::bench(args = DIRTY)]
fn find_differences(bencher: Bencher<'_, '_>, count: usize) {
    let ram = ram();
    let empty = PageIndex::new(PAGES);
    let (beneath, _beneath) = snapshot(&ram, 20_000, &empty);
    let (index, _layer) = snapshot(&ram, count, &beneath);
    bencher.bench_local(|| {
        let mut pages = 0;
        index.for_each_difference(&beneath, |_, bits| pages += bits.count_ones());
        pages
    });
}

/// Finding dirty pages in the index and copying them back.
#[divan::bench(args = DIRTY)]
fn put_back(bencher: Bencher<'_, '_>, count: usize) {
    let ram = ram();
    let (index, _layer) = snapshot(&ram, count, &PageIndex::new(PAGES));
    bencher.bench_local(|| {
        for page in scattered(count) {
            let contents = index.get(page).expect("it was entered");
            // SAFETY: whole pages of two mappings, which nobody else knows.
            unsafe {
                let target = ram.start().add(page * PAGE_SIZE);
                target.copy_from_nonoverlapping(contents.address(), PAGE_SIZE);
            }
        }
    });
}
