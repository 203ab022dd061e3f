/* Copies and comparisons. A repeated string instruction is decoded once and then iterated, which on
 * an emulating host is several times cheaper than a loop. */
#pragma once
#include "types.h"

INLINE void copy(void *to, const void *from, u64 length)
{
    u64 words = length >> 3;
    u64 rest = length & 7;
    __asm__ volatile("rep movsq\n\tmovq %3, %%rcx\n\trep movsb"
                     : "+D"(to), "+S"(from), "+c"(words)
                     : "r"(rest)
                     : "memory");
}
INLINE void clear(void *to, u64 words)
{
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(0ul) : "memory");
}
INLINE void fill(void *to, u8 byte, u64 length)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(byte) : "memory");
}
INLINE bool equal(const void *left, const void *right, u64 length)
{
    bool same = true;
    if (length == 0) {
        return true;
    }
    __asm__ volatile("repe cmpsb" : "=@ccz"(same), "+S"(left), "+D"(right), "+c"(length)::"memory");
    return same;
}
/* The first `byte` in [from, end), or `end`. */
INLINE const u8 *find(const u8 *from, const u8 *end, u8 byte)
{
    u64 count = (u64)(end - from);
    bool found;
    if (count == 0) {
        return end;
    }
    __asm__ volatile("repne scasb" : "=@ccz"(found), "+D"(from), "+c"(count) : "a"(byte) : "memory");
    return found ? from - 1 : end;
}
