#include "touched.h"
#include "cpu.h"
#include "memory_layout.h"

#define PAGE_WORDS (PAGE_SIZE / 8)

HOT static u64 pages_available; /* pages below this number may be chosen */
HOT static u64 touched_count;   /* entries of memory.touched_list */
/* Coprime to page_stride_for, so that its multiples visit each page once. */
HOT static u64 page_stride;
HOT static u64 page_stride_for;

/* Multiplication carries a change upward, the rotation back down. */
INLINE u64 hash_word(u64 hash, u64 word)
{
    hash = (hash + word) * 0x9fb21c651e98df25;
    return hash << 29 | hash >> 35;
}

/* The word of a page between the first and the last. */
INLINE u64 middle_word(u64 number) { return 128 + ((u32)number * 2654435761u >> 24); }

static u64 touched_available(void) { return pages_available; }

static void touched_limit(u64 pages) { pages_available = pages; }

static bool touched(u64 number) { return (memory.touched_bits[number / 64] >> number % 64 & 1) != 0; }

static u64 untouched_below(u64 end, u64 most, u64 *length)
{
    u64 start;

    while (end != 0 && touched(end - 1)) {
        end--;
    }
    start = end;
    while (start != 0 && end - start < most) {
        if (start % 64 == 0 && memory.touched_bits[start / 64 - 1] == 0 &&
            end - start + 64 <= most) {
            start -= 64;
        } else if (!touched(start - 1)) {
            start--;
        } else {
            break;
        }
    }
    *length = end - start;
    return start;
}

static u64 untouched_from(u64 start, u64 most, u64 *length)
{
    u64 pages = memory.region_pages;
    u64 end;

    while (start < pages && touched(start)) {
        start++;
    }
    end = start;
    while (end < pages && end - start < most) {
        if (end % 64 == 0 && memory.touched_bits[end / 64] == 0 && end + 64 <= pages &&
            end - start + 64 <= most) {
            end += 64;
        } else if (!touched(end)) {
            end++;
        } else {
            break;
        }
    }
    *length = end - start;
    return start;
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

/* The loops below keep in registers what the compiler, for fear of aliases, would load anew for each
 * page: their instructions are what `dirty` and `checksum` cost. */

static void touched_write(u64 count, u64 seed)
{
    u64 value = hash_word(0x243f6a8885a308d3, seed);
    u64 limit = pages_available;
    u64 *bits = memory.touched_bits;
    u32 *next = memory.touched_list + touched_count;
    struct region_window window = region_window();
    u64 number, step;

    if (count == 0) {
        return;
    }
    if (page_stride_for != limit) {
        choose_stride();
    }
    step = page_stride; /* less than limit */
    number = value % limit;
    for (; count != 0; count--) {
        u64 *page = region_page(&window, number);
        if (!set_bit(bits, number)) {
            *next++ = (u32)number;
        }
        value += 0x9e3779b97f4a7c15;
        page[0] = value;
        page[middle_word(number)] = value;
        page[PAGE_WORDS - 1] = value;
        number += step;
        if (number >= limit) {
            number -= limit;
        }
    }
    touched_count = (u64)(next - memory.touched_list);
}

static u64 touched_hash(u64 hash)
{
    const u32 *next = memory.touched_list;
    const u32 *end = next + touched_count;
    struct region_window window = region_window();

    for (; next != end; next++) {
        u64 number = *next;
        const u64 *page = region_page(&window, number);
        hash = hash_word(hash, number ^ page[0]);
        hash = hash_word(hash, page[middle_word(number)]);
        hash = hash_word(hash, page[PAGE_WORDS - 1]);
    }
    return hash;
}
