#include "memory_layout.h"
#include "cpu.h"
#include "memory.h"

#define RANGES 8
#define BLOCKS_MAX 512
/* Page directories for RAM above 4 GiB, one a GiB. */
#define HIGH_DIRECTORIES 60

struct range {
    u64 base;  /* guest-physical address */
    u64 pages;
    u64 first; /* the number of its first page in the region */
};

extern u8 image_end[];
extern u64 page_directory_pointers[512];

HOT struct memory_layout memory;
HOT static struct range ranges[RANGES];
HOT static u32 range_count;

HOT static u8 *blocks;
HOT static u32 blocks_total;
HOT static u32 blocks_taken; /* taken from the untouched end so far */
HOT static u32 blocks_free;  /* on the stack of returned blocks */
static u16 block_stack[BLOCKS_MAX];

LARGE static u64 high_directories[HIGH_DIRECTORIES][512];
static u32 high_directories_used;

static void memory_add(u64 base, u64 size)
{
    u64 end = base + size;
    u64 low = (u64)image_end;

    memory.total += size;
    base = (base + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    if (base < low) {
        base = low;
    }
    if (end > GIB(4 + HIGH_DIRECTORIES)) {
        end = GIB(4 + HIGH_DIRECTORIES);
    }
    if (end < base + PAGE_SIZE || range_count == RANGES) {
        return;
    }
    ranges[range_count].base = base;
    ranges[range_count].pages = (end - base) / PAGE_SIZE;
    range_count++;
}

/* Takes `size` bytes from the start of the lowest range. */
static u8 *carve(u64 size)
{
    u64 base = ranges[0].base;
    u64 pages = (size + PAGE_SIZE - 1) / PAGE_SIZE;

    ranges[0].base += pages * PAGE_SIZE;
    ranges[0].pages -= pages;
    return (u8 *)base;
}

static void memory_seal(void)
{
    u64 pages = 0;
    u64 size = ranges[0].pages * PAGE_SIZE;

    /* An eighth of the lowest range for blocks, a sixteenth for the store: at least 1 MiB and
     * 512 KiB in the smallest machine, and no more than is of use in a large one. */
    blocks_total = (u32)((size >> 3) / BLOCK_SIZE);
    if (blocks_total > BLOCKS_MAX) {
        blocks_total = BLOCKS_MAX;
    }
    memory.store_size = size >> 4 > MIB(4) ? MIB(4) : (size >> 4) & ~(PAGE_SIZE - 1);
    blocks = carve(blocks_total * BLOCK_SIZE);
    memory.store = carve(memory.store_size);

    for (u32 i = 0; i < range_count; i++) {
        pages += ranges[i].pages;
    }
    memory.touched_bits = (u64 *)carve(pages / 8 + 8);
    memory.touched_list = (u32 *)carve(pages * sizeof(u32));
    pages = 0;
    for (u32 i = 0; i < range_count; i++) {
        ranges[i].first = pages;
        pages += ranges[i].pages;
    }
    memory.region_pages = pages;
}

/* Maps the 2 MiB around an address above 4 GiB. */
static NOINLINE void map_high(u64 address)
{
    u64 *pointer = &page_directory_pointers[address >> 30];
    u64 *entry;

    if ((*pointer & 1) == 0) {
        u64 *directory = high_directories[high_directories_used++];
        clear(directory, 512);
        *pointer = (u64)directory | 3;
    }
    entry = (u64 *)(*pointer & ~(PAGE_SIZE - 1)) + (address >> 21 & 511);
    if ((*entry & 1) == 0) {
        *entry = (address & ~(MIB(2) - 1)) | 0x83;
        compiler_barrier();
    }
}

static const struct range *range_of(u64 number)
{
    const struct range *range = &ranges[0];

    while (number >= range->first + range->pages) {
        range++;
    }
    return range;
}

/* A page of the region that may lie above the first range. */
static NOINLINE u64 *region_page_far(u64 number)
{
    const struct range *range = range_of(number);
    u64 address = range->base + (number - range->first) * PAGE_SIZE;

    if (unlikely(address >= GIB(4))) {
        map_high(address);
    }
    return (u64 *)address;
}

INLINE struct region_window region_window(void)
{
    return (struct region_window){ranges[0].base, ranges[0].pages};
}

INLINE u64 *region_page(const struct region_window *window, u64 number)
{
    return likely(number < window->pages) ? (u64 *)(window->base + number * PAGE_SIZE)
                                          : region_page_far(number);
}

static u64 region_frame(u64 number, u64 *run)
{
    const struct range *range = range_of(number);
    u64 offset = number - range->first;

    *run = range->pages - offset;
    return range->base / PAGE_SIZE + offset;
}

static u8 *block_allocate(void)
{
    if (blocks_free != 0) {
        return blocks + block_stack[--blocks_free] * BLOCK_SIZE;
    }
    return blocks_taken < blocks_total ? blocks + blocks_taken++ * BLOCK_SIZE : NULL;
}

static void block_free(const u8 *block)
{
    block_stack[blocks_free++] = (u16)((u64)(block - blocks) / BLOCK_SIZE);
}
