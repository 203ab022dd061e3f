//! The bitmap of the pages that the VMM wrote: its cost must follow the pages, not the memory.

#![allow(missing_docs, reason = "a program")]

use divan::Bencher;
use vmoon_virtio::memory::DirtyBitmap;

const PAGE_SIZE: usize = 4096;

/// Sizes of memory in MiB.
const MEMORY: &[usize] = &[256, 4096];

fn main() {
    divan::main();
}

/// Marking 50 pages all over memory and taking them out again.
#[divan::bench(args = MEMORY)]
fn mark_and_drain(bencher: Bencher<'_, '_>, mib: usize) {
    let bytes = mib << 20;
    let bitmap = DirtyBitmap::new(bytes);
    bencher.bench_local(|| {
        for index in 0..50 {
            bitmap.mark(index * 81_007 * PAGE_SIZE % bytes, PAGE_SIZE);
        }
        let mut pages = 0;
        bitmap.drain(|_, bits| pages += bits.count_ones());
        pages
    });
}

/// Looking at a bitmap in which nothing is marked.
#[divan::bench(args = MEMORY)]
fn drain_nothing(bencher: Bencher<'_, '_>, mib: usize) {
    let bitmap = DirtyBitmap::new(mib << 20);
    bencher.bench_local(|| bitmap.drain(|_, _| unreachable!("nothing was marked")));
}
