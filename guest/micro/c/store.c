#include "store.h"
#include "memory.h"
#include "memory_layout.h"
#include "touched.h"

#define RECORD_CHAINS 64

static struct record *record_chains[RECORD_CHAINS];
static struct record *records_unused;
HOT static u64 store_used; /* bytes of memory.store that hold records */

static struct record **record_chain(const u8 *key, u64 length)
{
    u64 hash = length;

    for (u64 i = 0; i < length; i++) {
        hash = hash * 31 + key[i];
    }
    return &record_chains[hash % RECORD_CHAINS];
}

static struct record **locate(const u8 *key, u64 length)
{
    struct record **at = record_chain(key, length);

    while (*at != NULL &&
           ((*at)->key_length != length || !equal((*at)->bytes, key, length))) {
        at = &(*at)->next;
    }
    return at;
}

static struct record *take(u64 capacity)
{
    struct record *record;

    for (struct record **at = &records_unused; *at != NULL; at = &(*at)->next) {
        if ((*at)->capacity >= capacity) {
            record = *at;
            *at = record->next;
            return record;
        }
    }
    if (memory.store_size - store_used < sizeof(struct record) + capacity) {
        return NULL;
    }
    record = (struct record *)(memory.store + store_used);
    record->capacity = (u32)capacity;
    store_used += sizeof(struct record) + capacity;
    return record;
}

static bool store_put(const u8 *key, u64 key_length, const u8 *value, u64 value_length)
{
    struct record **at = locate(key, key_length);
    struct record *record = *at;
    u64 capacity = (key_length + value_length + 7) & ~7ul;

    if (record == NULL || record->capacity < capacity) {
        struct record *fresh = take(capacity);
        if (fresh == NULL) {
            return false;
        }
        fresh->next = NULL;
        if (record != NULL) {
            fresh->next = record->next;
            record->in_use = 0;
            record->next = records_unused;
            records_unused = record;
        }
        *at = record = fresh;
        record->key_length = (u32)key_length;
        record->in_use = 1;
        copy(record->bytes, key, key_length);
    }
    record->value_length = (u32)value_length;
    copy(record->bytes + key_length, value, value_length);
    return true;
}

static const struct record *store_get(const u8 *key, u64 key_length)
{
    return *locate(key, key_length);
}

static const struct record *store_behind(const struct record *record)
{
    return (const struct record *)(record->bytes + record->capacity);
}

static const struct record *store_first(const struct record *record)
{
    const struct record *end = (const struct record *)(memory.store + store_used);

    if (record == NULL) {
        record = (const struct record *)memory.store;
    }
    while (record < end && !record->in_use) {
        record = store_behind(record);
    }
    return record < end ? record : NULL;
}

static u64 store_hash(u64 hash)
{
    const u64 *word = (const u64 *)memory.store;
    const u64 *end = (const u64 *)(memory.store + store_used);

    hash = hash_word(hash, store_used);
    for (; word < end; word++) {
        hash = hash_word(hash, *word);
    }
    return hash;
}
