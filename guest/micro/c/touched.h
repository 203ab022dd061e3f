/* The page region as `dirty` and `checksum` see it.
 *
 * `dirty` writes three words in each page: the first, the last, and one between them that the page's
 * number chooses. `checksum` reads these three back from every page that was ever touched, in the
 * order of the first touch, so that it costs time in proportion to what was touched. */
#pragma once
#include "types.h"

/* Pages that the balloon has left. */
static u64 touched_available(void);
/* Sets how many pages are left; pages that fall out are forgotten. */
static void touched_limit(u64 pages);
/* Writes to `count` distinct pages, at most touched_available(), as the seed says. */
static void touched_write(u64 count, u64 seed);
/* Goes on with a hash over the touched pages. */
static u64 touched_hash(u64 hash);
/* One step of the hash. */
INLINE u64 hash_word(u64 hash, u64 word);
