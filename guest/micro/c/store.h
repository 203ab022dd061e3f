/* The key-value store behind `put`, `get` and `keys`: records one after another in memory.store,
 * found through chains by hash. A record that is replaced by a longer one is reused later. */
#pragma once
#include "types.h"

struct record {
    struct record *next; /* in its chain, or among the unused */
    u32 key_length;
    u32 value_length;
    u32 capacity; /* bytes for key and value; a multiple of 8 */
    u32 in_use;
    u8 bytes[];
};

/* False when the store is full. */
static bool store_put(const u8 *key, u64 key_length, const u8 *value, u64 value_length);
static const struct record *store_get(const u8 *key, u64 key_length);
/* The first record in use at or after `record`, which is NULL for the first of all; NULL at the end. */
static const struct record *store_first(const struct record *record);
/* The record that lies behind `record`, for store_first. */
static const struct record *store_behind(const struct record *record);
/* Goes on with a hash over all records. */
static u64 store_hash(u64 hash);
