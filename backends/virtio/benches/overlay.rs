//! The overlay of a disk: what snapshots and restores cost must follow the clusters written since,
//! not those that the overlay holds.

#![allow(missing_docs, reason = "a program")]

use std::convert::Infallible;
use std::hint::black_box;

use divan::Bencher;
use vmoon_virtio::block::{CLUSTER_SIZE, Overlay};

/// Clusters in the overlay: 4 MiB and 1 GiB.
const HELD: &[u64] = &[1 << 10, 1 << 18];
/// Clusters written after the snapshot.
const DIRTY: u64 = 100;

fn main() {
    divan::main();
}

fn overlay(clusters: u64) -> Overlay {
    let mut overlay = Overlay::new();
    for index in 0..clusters {
        overlay.get_mut(index, |_| Ok::<_, Infallible>(())).unwrap()[0] = 1;
    }
    overlay
}

/// Spread over all of the overlay.
fn dirty(overlay: &mut Overlay, held: u64) {
    for number in 0..DIRTY {
        let index = number * 81_007 % held;
        let cluster = overlay.get_mut(index, |_| Ok::<_, Infallible>(())).unwrap();
        cluster[1] = cluster[1].wrapping_add(1);
    }
}

/// Taking a snapshot.
#[divan::bench(args = HELD)]
fn snapshot(bencher: Bencher<'_, '_>, held: u64) {
    let overlay = overlay(held);
    bencher.bench_local(|| black_box(overlay.clone()));
}

/// Writing to clusters of a snapshot, which copies them, and going back to it.
#[divan::bench(args = HELD)]
fn write_and_restore(bencher: Bencher<'_, '_>, held: u64) {
    let saved = overlay(held);
    let mut live = saved.clone();
    bencher.bench_local(|| {
        dirty(&mut live, held);
        live = saved.clone();
    });
}

/// The floor of the above: as many clusters copied to fresh memory, and that freed.
#[divan::bench(args = HELD)]
fn floor(bencher: Bencher<'_, '_>, held: u64) {
    let saved: Vec<_> = (0..held).map(|_| Box::new([1_u8; CLUSTER_SIZE])).collect();
    bencher.bench_local(|| {
        let copies: Vec<_> = (0..DIRTY)
            .map(|number| saved[usize::try_from(number * 81_007 % held).unwrap()].clone())
            .collect();
        black_box(copies);
    });
}
