/* The page region as `dirty` and `checksum` see it.
 *
 * `dirty` writes three words in each page: the first, the last, and one between them that the page's
 * number chooses. `checksum` reads these three back from every page that was ever touched, in the
 * order of the first touch, so that it costs time in proportion to what was touched. */
#pragma once
#include "types.h"

/* Pages that `dirty` may choose from: those below a limit. */
static u64 touched_available(void);
/* Sets the limit. Pages above it that were touched before stay what they are. */
static void touched_limit(u64 pages);
/* The highest run of at most `most` untouched pages below `end`, and the lowest from `start` on;
 * they give its first page, and its length, which is 0 when there is none. */
static u64 untouched_below(u64 end, u64 most, u64 *length);
static u64 untouched_from(u64 start, u64 most, u64 *length);
/* Writes to `count` distinct pages, at most touched_available(), as the seed says. */
static void touched_write(u64 count, u64 seed);
/* Goes on with a hash over the touched pages. */
static u64 touched_hash(u64 hash);
/* One step of the hash. */
INLINE u64 hash_word(u64 hash, u64 word);
