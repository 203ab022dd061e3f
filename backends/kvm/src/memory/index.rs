//! A persistent map from page numbers to contents.
//!
//! A radix tree with 64 children a node. Entering a page copies the nodes on the way to it and
//! shares all the others, so an index above another costs what was entered, and two indexes are
//! compared in the time of their differences: subtrees that they share are skipped by address.

use std::sync::Arc;

use super::layer::PageContents;

/// Children of a node, and bits in a word of a dirty bitmap.
const FANOUT: usize = 64;

/// The map. Cloning it shares everything.
#[derive(Clone, Debug)]
pub(crate) struct PageIndex {
    root: Option<Arc<Node>>,
    /// Levels of inner nodes above the leaves.
    height: u32,
    length: usize,
}

#[derive(Clone, Debug)]
enum Node {
    Inner(Box<[Option<Arc<Node>>; FANOUT]>),
    Leaf(Box<[Option<PageContents>; FANOUT]>),
}

impl PageIndex {
    /// An empty index for pages below `pages`.
    pub(crate) fn new(pages: usize) -> Self {
        let mut height = 0;
        let mut reach = FANOUT;
        while reach < pages {
            reach = reach.saturating_mul(FANOUT);
            height += 1;
        }
        Self { root: None, height, length: 0 }
    }

    /// The number of pages entered.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// What was entered for the page.
    pub(crate) fn get(&self, page: usize) -> Option<PageContents> {
        let mut node = self.root.as_deref()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Inner(children) => node = children[slot(page, level)].as_deref()?,
                Node::Leaf(entries) => return entries[page % FANOUT],
            }
            level = level.saturating_sub(1);
        }
    }

    /// Enters a page, in place of what was there.
    pub(crate) fn insert(&mut self, page: usize, contents: PageContents) {
        let mut level = self.height;
        let mut node = Arc::make_mut(self.root.get_or_insert_with(|| Arc::new(Node::empty(level))));
        loop {
            match node {
                Node::Inner(children) => {
                    let child = &mut children[slot(page, level)];
                    level -= 1;
                    node = Arc::make_mut(child.get_or_insert_with(|| Arc::new(Node::empty(level))));
                }
                Node::Leaf(entries) => {
                    if entries[page % FANOUT].replace(contents).is_none() {
                        self.length += 1;
                    }
                    return;
                }
            }
        }
    }

    /// Calls `visit` for each page in order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(usize, PageContents)) {
        if let Some(root) = &self.root {
            root.for_each(0, &mut visit);
        }
    }

    /// Calls `visit(word, bits)` for each group of 64 pages in which the two differ.
    pub(crate) fn for_each_difference(&self, other: &Self, mut visit: impl FnMut(usize, u64)) {
        debug_assert_eq!(self.height, other.height, "indexes of one family");
        differences(self.root.as_ref(), other.root.as_ref(), 0, &mut visit);
    }
}

impl Node {
    fn empty(level: u32) -> Self {
        if level == 0 {
            Self::Leaf(Box::new([None; FANOUT]))
        } else {
            Self::Inner(Box::new([const { None }; FANOUT]))
        }
    }

    fn for_each(&self, prefix: usize, visit: &mut impl FnMut(usize, PageContents)) {
        match self {
            Self::Inner(children) => {
                for (slot, child) in children.iter().enumerate() {
                    if let Some(child) = child {
                        child.for_each(prefix * FANOUT + slot, visit);
                    }
                }
            }
            Self::Leaf(entries) => {
                for (slot, entry) in entries.iter().enumerate() {
                    if let Some(contents) = entry {
                        visit(prefix * FANOUT + slot, *contents);
                    }
                }
            }
        }
    }
}

fn slot(page: usize, level: u32) -> usize {
    (page >> (6 * level)) % FANOUT
}

fn differences(
    one: Option<&Arc<Node>>,
    other: Option<&Arc<Node>>,
    prefix: usize,
    visit: &mut impl FnMut(usize, u64),
) {
    match (one, other) {
        (Some(one), Some(other)) if Arc::ptr_eq(one, other) => {}
        (None, None) => {}
        _ => match (one.map(|node| &**node), other.map(|node| &**node)) {
            (Some(Node::Leaf(entries)), None) | (None, Some(Node::Leaf(entries))) => {
                report(prefix, visit, |slot| entries[slot].is_some());
            }
            (Some(Node::Leaf(one)), Some(Node::Leaf(other))) => {
                report(prefix, visit, |slot| one[slot] != other[slot]);
            }
            (one, other) => {
                for slot in 0..FANOUT {
                    let child = |node: Option<&'_ Node>| match node {
                        Some(Node::Inner(children)) => children[slot].clone(),
                        _ => None,
                    };
                    let (one, other) = (child(one), child(other));
                    differences(one.as_ref(), other.as_ref(), prefix * FANOUT + slot, visit);
                }
            }
        },
    }
}

fn report(word: usize, visit: &mut impl FnMut(usize, u64), differs: impl Fn(usize) -> bool) {
    let bits = (0..FANOUT).filter(|slot| differs(*slot)).fold(0, |bits, slot| bits | 1 << slot);
    if bits != 0 {
        visit(word, bits);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use rustix::mm::MapFlags;

    use super::super::layer::LayerBuilder;
    use super::*;

    /// Distinct contents to enter, and the layer that holds them.
    fn contents(count: usize) -> (Vec<PageContents>, Arc<super::super::layer::Layer>) {
        let page = super::super::mapping::Mapping::anonymous(4096, MapFlags::empty()).unwrap();
        let mut builder = LayerBuilder::new(count).unwrap();
        // SAFETY: `page` is a whole page that nobody else knows.
        let all = (0..count).map(|_| unsafe { builder.push(page.start()) }).collect();
        (all, builder.finish(None).unwrap())
    }

    const PAGES: usize = 300_000;

    fn differences(one: &PageIndex, other: &PageIndex) -> BTreeSet<usize> {
        let mut pages = BTreeSet::new();
        one.for_each_difference(other, |word, bits| {
            pages.extend((0..64).filter(|bit| bits & 1 << bit != 0).map(|bit| word * 64 + bit));
        });
        pages
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_a_map_through_generations(
            generations in prop::collection::vec(
                prop::collection::vec((prop_oneof![0..500_usize, 0..PAGES], 0..8_usize), 0..40),
                1..6,
            ),
        ) {
            let (contents, _layer) = contents(8);
            let mut history = vec![(PageIndex::new(PAGES), BTreeMap::new())];
            for entries in generations {
                let (mut index, mut model) = history.last().unwrap().clone();
                for (page, which) in entries {
                    index.insert(page, contents[which]);
                    model.insert(page, contents[which]);
                }
                history.push((index, model));
            }
            for (index, model) in &history {
                let mut listed = BTreeMap::new();
                index.for_each(|page, contents| {
                    listed.insert(page, contents);
                });
                prop_assert_eq!(&listed, model);
                prop_assert_eq!(index.len(), model.len());
                for page in (0..600).chain([PAGES - 1]) {
                    prop_assert_eq!(index.get(page), model.get(&page).copied());
                }
                for (other, other_model) in &history {
                    let expected: BTreeSet<usize> = model
                        .keys()
                        .chain(other_model.keys())
                        .filter(|page| model.get(page) != other_model.get(page))
                        .copied()
                        .collect();
                    prop_assert_eq!(differences(index, other), expected);
                }
            }
        }
    }
}
