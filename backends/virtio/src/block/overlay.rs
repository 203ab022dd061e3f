//! Blocks written above a read-only image, shared between snapshots.

use std::sync::{Arc, LazyLock};

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// The unit of copy-on-write, in bytes.
pub const CLUSTER_SIZE: usize = 4096;

/// Children of a node.
const FANOUT: usize = 64;
/// log2 of [`FANOUT`].
const FANOUT_BITS: u32 = FANOUT.trailing_zeros();
/// Bits of a cluster's index, a whole number of levels: more than any disk has.
const INDEX_BITS: u32 = 9 * FANOUT_BITS;

/// A cluster's bytes.
type Cluster = [u8; CLUSTER_SIZE];

/// A persistent map from cluster index to cluster.
///
/// A clone shares everything and costs nothing; a write copies the cluster and the nodes above
/// it where they are shared. A snapshot therefore holds only the clusters written since.
#[derive(Clone, Default)]
pub struct Overlay {
    root: Option<Arc<Node>>,
    /// Levels of inner nodes above the leaves: as many as the largest index needs.
    height: u32,
    count: u64,
}

#[derive(Clone)]
enum Node {
    Inner(Children<Node>),
    Leaf(Children<Cluster>),
}

/// The children present, packed, with a bitmap of their places.
struct Children<T> {
    present: u64,
    items: Vec<Arc<T>>,
}

impl<T> Clone for Children<T> {
    fn clone(&self) -> Self {
        Self { present: self.present, items: self.items.clone() }
    }
}

impl<T> Children<T> {
    const EMPTY: Self = Self { present: 0, items: Vec::new() };

    /// Where the child of this place is, or would be, in `items`.
    fn rank(&self, place: u32) -> usize {
        (self.present & ((1 << place) - 1)).count_ones() as usize
    }

    fn get(&self, place: u32) -> Option<&Arc<T>> {
        (self.present & (1 << place) != 0).then(|| &self.items[self.rank(place)])
    }

    fn get_or_insert_with(&mut self, place: u32, new: impl FnOnce() -> T) -> &mut Arc<T> {
        let rank = self.rank(place);
        if self.present & (1 << place) == 0 {
            self.items.insert(rank, Arc::new(new()));
            self.present |= 1 << place;
        }
        &mut self.items[rank]
    }

    fn set(&mut self, place: u32, item: Arc<T>) {
        let rank = self.rank(place);
        if self.present & (1 << place) == 0 {
            self.items.insert(rank, item);
            self.present |= 1 << place;
        } else {
            self.items[rank] = item;
        }
    }

    fn remove(&mut self, place: u32) {
        if self.present & (1 << place) != 0 {
            self.items.remove(self.rank(place));
            self.present &= !(1 << place);
        }
    }

    /// The places present, ascending.
    fn places(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        (0..64).filter(|place| self.present & (1 << place) != 0).zip(&self.items)
    }
}

/// The place in a node of this level (0: the leaves) that a cluster's index leads to.
#[allow(clippy::cast_possible_truncation, reason = "six bits")]
const fn place(index: u64, level: u32) -> u32 {
    ((index >> (level * FANOUT_BITS)) & (FANOUT as u64 - 1)) as u32
}

impl Node {
    const fn empty(level: u32) -> Self {
        if level == 0 { Self::Leaf(Children::EMPTY) } else { Self::Inner(Children::EMPTY) }
    }
}

impl Overlay {
    /// An overlay in which nothing is written.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of clusters written.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether nothing is written.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A cluster, if it was written. The index counts clusters from the start of the disk, and
    /// is below 2^54.
    pub fn get(&self, index: u64) -> Option<&[u8; CLUSTER_SIZE]> {
        let mut node = self.root.as_deref().filter(|_| self.reaches(index))?;
        let mut level = self.height;
        loop {
            match node {
                Node::Inner(children) => node = children.get(place(index, level))?,
                Node::Leaf(children) => return children.get(place(index, 0)).map(|c| &**c),
            }
            level -= 1;
        }
    }

    /// Whether the tree is high enough for a cluster.
    const fn reaches(&self, index: u64) -> bool {
        index >> ((self.height + 1) * FANOUT_BITS) == 0
    }

    /// A cluster to write to; `fill` provides the bytes beneath it on the first write.
    ///
    /// # Errors
    /// Those of `fill`; the overlay is then unchanged.
    pub fn get_mut<E>(
        &mut self,
        index: u64,
        fill: impl FnOnce(&mut [u8; CLUSTER_SIZE]) -> Result<(), E>,
    ) -> Result<&mut [u8; CLUSTER_SIZE], E> {
        let mut initial = None;
        if self.get(index).is_none() {
            let mut cluster = [0; CLUSTER_SIZE];
            fill(&mut cluster)?;
            initial = Some(cluster);
            self.count += 1;
        }
        let cluster = self
            .leaf(index)
            .get_or_insert_with(place(index, 0), || initial.unwrap_or([0; CLUSTER_SIZE]));
        Ok(Arc::make_mut(cluster))
    }

    /// Makes a cluster all zero; such clusters share one.
    pub fn zero(&mut self, index: u64) {
        static ZEROES: LazyLock<Arc<Cluster>> = LazyLock::new(|| Arc::new([0; CLUSTER_SIZE]));
        self.count += u64::from(self.get(index).is_none());
        self.leaf(index).set(place(index, 0), ZEROES.clone());
    }

    /// Forgets what was written to a cluster: what is beneath shows again.
    pub fn remove(&mut self, index: u64) {
        if self.get(index).is_some() {
            self.leaf(index).remove(place(index, 0));
            self.count -= 1;
        }
    }

    /// The leaf of a cluster, of this overlay alone.
    fn leaf(&mut self, index: u64) -> &mut Children<Cluster> {
        while !self.reaches(index) {
            let below = self.root.take();
            self.root =
                below.map(|root| Arc::new(Node::Inner(Children { present: 1, items: vec![root] })));
            self.height += 1;
        }
        let mut level = self.height;
        let root = self.root.get_or_insert_with(|| Arc::new(Node::empty(level)));
        let mut node = Arc::make_mut(root);
        loop {
            match node {
                Node::Inner(children) => {
                    let child =
                        children.get_or_insert_with(place(index, level), || Node::empty(level - 1));
                    node = Arc::make_mut(child);
                }
                Node::Leaf(children) => return children,
            }
            level -= 1;
        }
    }

    /// How many clusters of this overlay `older` does not share: those written since, where this
    /// one began as a clone of it. Takes the time of the differences.
    pub fn added_to(&self, older: &Self) -> u64 {
        let older = older.root.as_ref().map(|root| (root, older.height));
        self.root.as_ref().map_or(0, |root| added(root, self.height, older))
    }

    /// Calls `visit` for each cluster written, in ascending order.
    ///
    /// # Errors
    /// The first of `visit`.
    pub fn for_each<E>(
        &self,
        mut visit: impl FnMut(u64, &[u8; CLUSTER_SIZE]) -> Result<(), E>,
    ) -> Result<(), E> {
        fn walk<E>(
            node: &Node,
            prefix: u64,
            visit: &mut dyn FnMut(u64, &Cluster) -> Result<(), E>,
        ) -> Result<(), E> {
            match node {
                Node::Inner(children) => children.places().try_for_each(|(place, child)| {
                    walk(child, (prefix | u64::from(place)) << FANOUT_BITS, visit)
                }),
                Node::Leaf(children) => children
                    .places()
                    .try_for_each(|(place, cluster)| visit(prefix | u64::from(place), cluster)),
            }
        }
        self.root.as_deref().map_or(Ok(()), |root| walk(root, 0, &mut visit))
    }
}

/// How many bytes of clusters a machine's disks have that they did not share `before`, disk by disk.
/// No overlays of before stand for empty ones.
pub fn bytes_added(before: &[Overlay], now: &[Overlay]) -> u64 {
    let none = Overlay::new();
    let before = before.iter().chain(std::iter::repeat(&none));
    let clusters: u64 = now.iter().zip(before).map(|(now, then)| now.added_to(then)).sum();
    clusters * CLUSTER_SIZE as u64
}

/// How many clusters of a node `older`, a node with its level, does not share.
fn added(node: &Arc<Node>, level: u32, older: Option<(&Arc<Node>, u32)>) -> u64 {
    if older.is_some_and(|(older, _)| Arc::ptr_eq(node, older)) {
        return 0;
    }
    match &**node {
        Node::Inner(children) => children
            .places()
            .map(|(place, child)| {
                let below = older.and_then(|(older, height)| match &**older {
                    // The older tree was not as high: all of it is below the first place.
                    _ if height < level => (place == 0).then_some((older, height)),
                    Node::Inner(children) => Some((children.get(place)?, height - 1)),
                    Node::Leaf(_) => None,
                });
                added(child, level - 1, below)
            })
            .sum(),
        Node::Leaf(children) => {
            let shared = |place, cluster| match older.map(|(older, _)| &**older) {
                Some(Node::Leaf(older)) => {
                    older.get(place).is_some_and(|older| Arc::ptr_eq(cluster, older))
                }
                _ => false,
            };
            children.places().filter(|(place, cluster)| !shared(*place, cluster)).count() as u64
        }
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("clusters", &self.count).finish_non_exhaustive()
    }
}

impl PartialEq for Overlay {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count
            && self
                .for_each(
                    |index, cluster| {
                        if other.get(index) == Some(cluster) { Ok(()) } else { Err(()) }
                    },
                )
                .is_ok()
    }
}

impl Eq for Overlay {}

/// A cluster on its way to or from a file.
#[derive(Serialize, Deserialize)]
struct SavedCluster<B> {
    index: u64,
    bytes: B,
}

impl Serialize for Overlay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(usize::try_from(self.count).ok())?;
        self.for_each(|index, cluster| {
            sequence.serialize_element(&SavedCluster { index, bytes: cluster.as_slice() })
        })?;
        sequence.end()
    }
}

impl<'de> Deserialize<'de> for Overlay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Clusters;
        impl<'de> Visitor<'de> for Clusters {
            type Value = Overlay;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of clusters of {CLUSTER_SIZE} bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Overlay, A::Error> {
                let mut overlay = Overlay::new();
                while let Some(saved) = list.next_element::<SavedCluster<Vec<u8>>>()? {
                    if saved.index >> INDEX_BITS != 0 {
                        return Err(A::Error::custom("a cluster's index is out of range"));
                    }
                    let bytes: &Cluster = saved.bytes.as_slice().try_into().map_err(|_| {
                        A::Error::invalid_length(saved.bytes.len(), &"a cluster of 4096 bytes")
                    })?;
                    let cluster = overlay.get_mut(saved.index, |_| Ok::<_, A::Error>(()))?;
                    cluster.copy_from_slice(bytes);
                }
                Ok(overlay)
            }
        }
        deserializer.deserialize_seq(Clusters)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn write(overlay: &mut Overlay, index: u64, byte: u8) {
        let cluster = overlay.get_mut(index, |_| Ok::<_, ()>(())).unwrap();
        cluster[0] = byte;
    }

    proptest! {
        #[test]
        fn is_a_map_and_clones_are_independent(
            first in prop::collection::vec(
                (prop_oneof![0_u64..5000, 0_u64..1 << 54], any::<u8>()), 0..40),
            second in prop::collection::vec((0_u64..200, any::<u8>()), 0..40),
        ) {
            let mut overlay = Overlay::new();
            let mut expected = BTreeMap::new();
            for &(index, byte) in first.iter().chain(&second[..second.len() / 2]) {
                write(&mut overlay, index, byte);
                expected.insert(index, byte);
            }
            let snapshot = overlay.clone();
            let frozen = expected.clone();
            for &(index, byte) in &second {
                match byte % 4 {
                    0 => {
                        overlay.zero(index);
                        expected.insert(index, 0);
                    }
                    1 => {
                        overlay.remove(index);
                        expected.remove(&index);
                    }
                    _ => {
                        write(&mut overlay, index, byte);
                        expected.insert(index, byte);
                    }
                }
            }
            let mut added = 0;
            overlay.for_each(|index, cluster| {
                let shared = snapshot.get(index).is_some_and(|old| std::ptr::eq(old, cluster));
                added += u64::from(!shared);
                Ok::<_, ()>(())
            }).unwrap();
            prop_assert_eq!(overlay.added_to(&snapshot), added);
            prop_assert_eq!(overlay.added_to(&Overlay::new()), overlay.len());
            for (overlay, expected) in [(&snapshot, &frozen), (&overlay, &expected)] {
                let mut found = BTreeMap::new();
                overlay.for_each(|index, cluster| {
                    found.insert(index, cluster[0]);
                    Ok::<_, ()>(())
                }).unwrap();
                prop_assert_eq!(&found, expected);
                prop_assert_eq!(overlay.len(), expected.len() as u64);
                for (&index, &byte) in expected {
                    prop_assert_eq!(overlay.get(index).unwrap()[0], byte);
                }
            }
        }
    }

    #[test]
    fn survives_serde_and_refuses_what_does_not_fit() {
        let mut overlay = Overlay::new();
        write(&mut overlay, 5, 1);
        write(&mut overlay, 1 << 40, 2);
        let text = serde_json::to_string(&overlay).unwrap();
        assert_eq!(serde_json::from_str::<Overlay>(&text).unwrap(), overlay);
        for wrong in
            [r#"[{"index":1,"bytes":[1]}]"#, r#"[{"index":18446744073709551615,"bytes":[]}]"#]
        {
            assert!(serde_json::from_str::<Overlay>(wrong).is_err());
        }
    }

    #[test]
    fn a_failed_fill_changes_nothing() {
        let mut overlay = Overlay::new();
        assert_eq!(overlay.get_mut(3, |_| Err("no")), Err("no"));
        assert!(overlay.is_empty());
        assert!(overlay.get(3).is_none());
    }
}
