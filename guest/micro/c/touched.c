#include "touched.h"
#include "cpu.h"
#include "memory_layout.h"

#define PAGE_WORDS (PAGE_SIZE / 8)

HOT static u64 pages_available;     /* pages below this number may be used */
HOT static u64 touched_count; /* entries of memory.touched_list */
HOT static u64 page_stride;        /* coprime to page_stride_for, so that multiples of it visit each page once */
HOT static u64 page_stride_for;

static u64 hash_word(u64 hash, u64 word)
{
    hash = (hash ^ word) * 0x9fb21c651e98df25;
    return hash ^ hash >> 32;
}

/* The word of a page between the first and the last. */
static u64 middle_word(u64 number) { return 1 + (u32)(number * 2654435761u) % (PAGE_WORDS - 2); }

static u64 touched_available(void) { return pages_available; }

static void touched_limit(u64 pages)
{
    u64 kept = 0;

    if (pages < pages_available) {
        for (u64 i = 0; i < touched_count; i++) {
            u32 number = memory.touched_list[i];
            if (number < pages) {
                memory.touched_list[kept++] = number;
            } else {
                clear_bit(memory.touched_bits, number);
            }
        }
        touched_count = kept;
    }
    pages_available = pages;
}

static void choose_stride(void)
{
    page_stride_for = pages_available;
    page_stride = (pages_available * 5 >> 3) | 1; /* close to the golden section: neighbours lie far apart */
    for (;; page_stride += 2) {
        u64 a = pages_available;
        u64 b = page_stride;
        while (b != 0) {
            u64 rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) {
            return;
        }
    }
}

static void touched_write(u64 count, u64 seed)
{
    u64 value = hash_word(0x243f6a8885a308d3, seed);
    u64 number;

    if (count == 0) {
        return;
    }
    if (page_stride_for != pages_available) {
        choose_stride();
    }
    number = value % pages_available;
    for (; count != 0; count--) {
        u64 *page = region_page(number);
        if (!set_bit(memory.touched_bits, number)) {
            memory.touched_list[touched_count++] = (u32)number;
        }
        value = value * 6364136223846793005 + 1442695040888963407;
        page[0] = value;
        page[middle_word(number)] = value;
        page[PAGE_WORDS - 1] = value;
        number += page_stride;
        while (number >= pages_available) {
            number -= pages_available;
        }
    }
}

static u64 touched_hash(u64 hash)
{
    for (u64 i = 0; i < touched_count; i++) {
        u64 number = memory.touched_list[i];
        const u64 *page = region_page(number);
        hash = hash_word(hash, number ^ page[0]);
        hash = hash_word(hash, page[middle_word(number)]);
        hash = hash_word(hash, page[PAGE_WORDS - 1]);
    }
    return hash;
}
