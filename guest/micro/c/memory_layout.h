/* Who owns which RAM. From the image's end upward: buffers handed out in blocks, the key-value
 * store, the records of touched pages, and then the page region, which `dirty` and the balloon use.
 *
 * The page region may lie in several ranges of RAM; its pages are numbered through. The balloon
 * takes pages from the top of that numbering. */
#pragma once
#include "types.h"

/* A block holds what cannot be processed yet: a frame that arrives in pieces, output that the host
 * has no room for, a disk's data. Its memory is untouched until used. */
#define BLOCK_SIZE (KIB(132))

struct memory_layout {
    u64 total;          /* bytes of RAM */
    u8 *store;          /* the key-value store */
    u64 store_size;
    u64 *touched_bits;  /* one bit a page of the region: touched by `dirty` */
    u32 *touched_list;  /* their numbers, in the order of the first touch */
    u64 region_pages;   /* pages in the page region, those in the balloon included */
};

extern struct memory_layout memory;

/* Boot: adds a range of RAM; ranges come in ascending order. */
static void memory_add(u64 base, u64 size);
/* Boot: divides what was added. */
static void memory_seal(void);

/* Where the region's first range lies; most pages are in it. */
struct region_window {
    u64 base;
    u64 pages;
};
INLINE struct region_window region_window(void);
/* The memory of a page of the region. */
INLINE u64 *region_page(const struct region_window *window, u64 number);
/* Its guest frame number, as the balloon wants it, and how many frames follow it without a gap. */
static u64 region_frame(u64 number, u64 *run);

/* A block, or NULL when none is left. */
static u8 *block_allocate(void);
/* `block` may point anywhere into it. */
static void block_free(const u8 *block);
