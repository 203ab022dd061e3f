/* `blk read SECTOR N` prints N sectors; `blk write SECTOR HEX` writes bytes from a sector on. A write
 * that ends within a sector keeps the rest of that sector. */
#include "block.h"
#include "commands.h"
#include "exec.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"
#include "output.h"
#include "text.h"

#define BYTES_MAX KIB(64)

/* The command's block: the data, and behind it the last sector as it was before a write. */
#define TAIL_SECTOR (BYTES_MAX + SECTOR_SIZE)

/* Uses of connection.argument. */
enum { SECTOR, BYTES, PRINTED };

static u64 whole_sectors(u64 bytes) { return (bytes + SECTOR_SIZE - 1) & ~(u64)(SECTOR_SIZE - 1); }

static void block_fail(struct connection *c, const char *why)
{
    exec_print(c);
    exec_finish(c, (u32)command_fail(1, why));
}

static bool produce_hex(struct connection *c)
{
    u64 left = c->argument[BYTES] - c->argument[PRINTED];
    u64 some = left < OUTPUT_PIECE / 2 ? left : OUTPUT_PIECE / 2;

    text_hex_bytes(output_reserve((u32)(2 * some)), c->exec_block + c->argument[PRINTED], some);
    output_written((u32)(2 * some));
    c->argument[PRINTED] += some;
    if (some != left) {
        return false;
    }
    output_bytes("\n", 1);
    return true;
}

/* Reports an error, and frees the memory when the command is gone; true when it may go on. */
static bool block_done_ok(struct connection *c, const u8 *data, bool ok)
{
    if (c == NULL) {
        block_free(data);
        return false;
    }
    if (!ok) {
        block_fail(c, "blk: the device reported an error\n");
    }
    return ok;
}

static void read_done(void *context, u8 *data, bool ok)
{
    struct connection *c = context;

    if (block_done_ok(c, data, ok)) {
        c->argument[PRINTED] = 0;
        c->produce = produce_hex;
        c->exec = EXEC_PRODUCE;
        exec_pump(c);
    }
}

static void write_done(void *context, u8 *data, bool ok)
{
    struct connection *c = context;

    if (block_done_ok(c, data, ok)) {
        exec_print(c);
        exec_finish(c, 0);
    }
}

static bool write_all(struct connection *c)
{
    return block_transfer(true, c->argument[SECTOR], c->exec_block,
                          whole_sectors(c->argument[BYTES]), write_done, c);
}

/* The last sector's old bytes have come: they complete what is written. */
static void tail_done(void *context, u8 *data, bool ok)
{
    struct connection *c = context;
    u64 within;

    if (!block_done_ok(c, data, ok)) {
        return;
    }
    within = c->argument[BYTES] % SECTOR_SIZE;
    copy(c->exec_block + c->argument[BYTES], c->exec_block + TAIL_SECTOR + within,
         SECTOR_SIZE - within);
    if (!write_all(c)) {
        block_fail(c, "blk: too many requests at once\n");
    }
}

static bool start_write(struct connection *c)
{
    if (c->argument[BYTES] % SECTOR_SIZE == 0) {
        return write_all(c);
    }
    return block_transfer(false, c->argument[SECTOR] + c->argument[BYTES] / SECTOR_SIZE,
                          c->exec_block + TAIL_SECTOR, SECTOR_SIZE, tail_done, c);
}

static bool word_is(u32 word, const char *text)
{
    u64 length = text_length(text);

    return word < word_count && words[word].length == length &&
           equal(words[word].text, text, length);
}

static NOINLINE i32 command_block(struct connection *c)
{
    bool write = word_is(1, "write");
    u64 sector, sectors, bytes, capacity;
    bool started;

    if ((!write && !word_is(1, "read")) || word_count != 4 || !command_number(2, &sector) ||
        (!write && !command_number(3, &sectors))) {
        return command_fail(2, "usage: blk read SECTOR COUNT, blk write SECTOR HEX\n");
    }
    if (!block_present()) {
        return command_fail(1, "blk: there is no block device\n");
    }
    if (write) {
        bytes = words[3].length / 2;
    } else {
        bytes = sectors > BYTES_MAX / SECTOR_SIZE ? ~0ul : sectors * SECTOR_SIZE;
    }
    capacity = block_capacity();
    if (bytes == 0 || bytes > BYTES_MAX || sector > capacity ||
        whole_sectors(bytes) / SECTOR_SIZE > capacity - sector) {
        return command_fail(1, "blk: out of range\n");
    }
    c->exec_block = block_allocate();
    if (c->exec_block == NULL) {
        return command_fail(1, "blk: out of memory\n");
    }
    c->argument[SECTOR] = sector;
    c->argument[BYTES] = bytes;
    if (write && !text_parse_hex_bytes(c->exec_block, words[3].text, words[3].length)) {
        block_free(c->exec_block);
        c->exec_block = NULL;
        return command_fail(2, "blk: not a hexadecimal text\n");
    }
    c->exec = EXEC_BLOCK;
    started = write ? start_write(c)
                    : block_transfer(false, sector, c->exec_block, whole_sectors(bytes), read_done,
                                     c);
    if (!started) {
        c->exec = EXEC_NONE;
        block_free(c->exec_block);
        c->exec_block = NULL;
        return command_fail(1, "blk: too many requests at once\n");
    }
    return EXEC_PENDING;
}
