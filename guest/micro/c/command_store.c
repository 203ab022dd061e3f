/* `put KEY VALUE`, `get KEY` and `keys`: the store; `cat PATH`: a file in it. */
#include "commands.h"
#include "exec.h"
#include "files.h"
#include "memory_layout.h"
#include "output.h"
#include "store.h"
#include "text.h"

/* Several words of a value are joined by spaces, so that a shell text may hold them. */
COMMAND command_put(void)
{
    u8 *block = NULL;
    struct word value;
    bool stored;

    if (word_count < 3) {
        return command_fail(2, "usage: put KEY VALUE\n");
    }
    value = words[2];
    if (word_count > 3) {
        u8 *at = block = block_allocate();
        if (block == NULL) {
            return command_fail(1, "put: out of memory\n");
        }
        for (u32 i = 2; i < word_count; i++) {
            copy(at, words[i].text, words[i].length);
            at += words[i].length;
            *at++ = ' ';
        }
        value = (struct word){block, (u64)(at - block) - 1};
    }
    stored = store_put(words[1].text, words[1].length, value.text, value.length);
    if (block != NULL) {
        block_free(block);
    }
    return stored ? 0 : command_fail(1, "put: the store is full\n");
}

COMMAND command_get(void)
{
    const struct record *record;

    if (word_count != 2) {
        return command_fail(2, "usage: get KEY\n");
    }
    record = store_get(words[1].text, words[1].length);
    if (record == NULL) {
        return 1;
    }
    output_bytes(record->bytes + record->key_length, record->value_length);
    output_bytes("\n", 1);
    return 0;
}

static bool produce_keys(struct connection *c)
{
    const struct record *record = store_first((const struct record *)c->argument[0]);
    u32 printed = 0;

    for (; record != NULL && printed < OUTPUT_PIECE / 2; record = store_first(store_behind(record))) {
        output_bytes(record->bytes, record->key_length);
        output_bytes("\n", 1);
        printed += record->key_length + 1;
    }
    c->argument[0] = (u64)record;
    return record == NULL;
}

COMMAND command_keys(struct connection *c)
{
    c->argument[0] = 0;
    c->produce = produce_keys;
    return EXEC_PRODUCING;
}

COMMAND command_cat(struct connection *c)
{
    bool found;

    if (word_count != 2) {
        return command_fail(2, "usage: cat PATH\n");
    }
    c->exec_block = block_allocate();
    if (c->exec_block == NULL) {
        return command_fail(1, "cat: out of memory\n");
    }
    found = file_open(c, words[1].text, words[1].length);
    if (!found) {
        block_free(c->exec_block);
        c->exec_block = NULL;
        return command_fail(1, "cat: there is no such file\n");
    }
    c->produce = produce_contents;
    return EXEC_PRODUCING;
}
