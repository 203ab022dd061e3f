#include "files.h"
#include "exec.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"
#include "output.h"
#include "store.h"

/* Tags of the fields, and nodes; see vmoon-protocol's module files. */
enum { TAG_PATH = 1, TAG_NAME = 2, TAG_CONTENTS = 4, TAG_NODE = 5, TAG_SIZE = 9, NODE_FILE = 1 };

#define PATH_LONGEST 1024
#define FILE_MAX ((u32)KIB(128))
#define OFFSET 8 /* bytes in front of a piece of data */

/* A transfer's block: the path while a file is received, then the file's bytes. */
#define BLOCK_PATH(c) ((c)->exec_block)
#define BLOCK_DATA(c) ((c)->exec_block + PATH_LONGEST)
_Static_assert(PATH_LONGEST + FILE_MAX <= BLOCK_SIZE, "a file and its path fit a block");

/* Uses of connection.argument. */
enum { PATH_LENGTH, LENGTH, DONE };

/* The value of a field; NULL when there is none. */
static const u8 *file_field(const u8 *at, u32 length, u32 tag, u64 *size)
{
    const u8 *end = at + length;

    while (end - at >= FIELD_HEADER) {
        u64 head = load64(at);
        *size = head >> 32;
        at += FIELD_HEADER;
        if (*size > (u64)(end - at)) {
            break;
        }
        if ((u16)head == tag) {
            return at;
        }
        at += *size;
    }
    *size = 0;
    return NULL;
}

/* A FRAME_ERROR: the code, and a message that is the path (if there is one) and a text. */
static COLD void file_fail(struct connection *c, u64 id, const char *code, const u8 *path, u64 length,
                      const char *text)
{
    output_open(c, id);
    output_kind(FRAME_ERROR);
    output_text(code);
    output_bytes("", 1);
    output_bytes(path, length < PATH_LONGEST ? length : PATH_LONGEST);
    output_text(text);
    output_send();
}

/* Ends the transfer that is under way. */
static void transfer_end(struct connection *c)
{
    block_free(c->exec_block);
    c->exec_block = NULL;
    c->exec = EXEC_NONE;
    c->flags &= (u8)~FLAG_TRANSFER;
}

static COLD void transfer_fail(struct connection *c, const char *code, const char *text)
{
    file_fail(c, c->exec_id, code, BLOCK_PATH(c), c->argument[PATH_LENGTH], text);
    transfer_end(c);
}

/* The path of a request in a new block of the connection; false after an error. */
static bool transfer_begin(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    u64 path_length, name_length;
    const u8 *path = file_field(payload, length, TAG_PATH, &path_length);
    const u8 *name = file_field(payload, length, TAG_NAME, &name_length);
    bool within = path_length != 0 && path[path_length - 1] == '/';

    if (c->exec != EXEC_NONE) {
        file_fail(c, id, "vm.state", NULL, 0, "a command is running on this connection");
        return false;
    }
    if (!within) {
        name_length = 0;
    }
    if (path_length + name_length == 0 || path_length + name_length > PATH_LONGEST) {
        file_fail(c, id, "file.not_found", path, path_length, " is no path in the micro guest");
        return false;
    }
    c->exec_block = block_allocate();
    if (c->exec_block == NULL) {
        file_fail(c, id, "file.io", path, path_length, ": the micro guest has no memory for it");
        return false;
    }
    copy(BLOCK_PATH(c), path, path_length);
    copy(BLOCK_PATH(c) + path_length, name, name_length);
    c->argument[PATH_LENGTH] = path_length + name_length;
    c->argument[LENGTH] = 0;
    c->exec_id = id;
    return true;
}

static void store_begin(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    if (transfer_begin(c, id, payload, length)) {
        c->exec = EXEC_FILE;
    }
}

static void store_entry(struct connection *c, const u8 *payload, u32 length)
{
    u64 size;
    const u8 *node = file_field(payload, length, TAG_NODE, &size);

    if (size != 1 || *node != NODE_FILE) {
        transfer_fail(c, "backend.unsupported",
                      ": the micro guest keeps single files, no directories");
    }
}

static void store_data(struct connection *c, const u8 *payload, u32 length)
{
    u64 offset, have = c->argument[LENGTH];

    if (length < OFFSET || (offset = load64(payload)) < have) {
        transfer_fail(c, "agent.unavailable", ": its bytes come in disorder");
        return;
    }
    length -= OFFSET;
    if (offset > FILE_MAX || length > FILE_MAX - offset) {
        transfer_fail(c, "file.no_space", ": the micro guest keeps files of at most 128 KiB");
        return;
    }
    fill(BLOCK_DATA(c) + have, 0, offset - have);
    copy(BLOCK_DATA(c) + offset, payload + OFFSET, length);
    c->argument[LENGTH] = offset + length;
    if (length != 0) {
        return;
    }
    if (!store_put(BLOCK_PATH(c), c->argument[PATH_LENGTH], BLOCK_DATA(c), offset)) {
        transfer_fail(c, "file.no_space", ": the micro guest's store is full");
        return;
    }
    transfer_end(c);
    output_open(c, c->exec_id);
    output_frame(FRAME_DONE, NULL, 0);
    output_send();
}

static bool file_open(struct connection *c, const u8 *path, u64 length)
{
    const struct record *record = store_get(path, length);

    if (record == NULL) {
        return false;
    }
    /* A copy: the record may be another's before all is sent. */
    c->argument[LENGTH] = record->value_length < FILE_MAX ? record->value_length : FILE_MAX;
    c->argument[DONE] = 0;
    copy(BLOCK_DATA(c), record->bytes + record->key_length, c->argument[LENGTH]);
    return true;
}

/* As much of the file as fits a packet, behind `header` bytes in front of it. */
static u32 next_piece(struct connection *c, u32 header, u8 **to)
{
    u64 left = c->argument[LENGTH] - c->argument[DONE];
    u32 some = left < OUTPUT_PIECE - header ? (u32)left : OUTPUT_PIECE - header;

    *to = output_reserve(header + some);
    copy(*to + header, BLOCK_DATA(c) + c->argument[DONE], some);
    c->argument[DONE] += some;
    output_written(header + some);
    return some;
}

static bool produce_contents(struct connection *c)
{
    u8 *to;

    next_piece(c, 0, &to);
    return c->argument[DONE] == c->argument[LENGTH];
}

static bool produce_pieces(struct connection *c)
{
    u64 offset = c->argument[DONE];
    u8 *to;
    u32 some;

    output_kind(FRAME_FETCH_DATA);
    some = next_piece(c, OFFSET, &to);
    store64(to, offset);
    output_kind(FRAME_STDOUT);
    return some == 0;
}

/* The root of a tree: a file without name, mode and date. */
static void print_entry(u64 size)
{
    u8 entry[2 * FIELD_HEADER + 1 + 8];

    store64(entry, TAG_NODE | 1ul << 32);
    entry[FIELD_HEADER] = NODE_FILE;
    store64(entry + FIELD_HEADER + 1, TAG_SIZE | 8ul << 32);
    store64(entry + 2 * FIELD_HEADER + 1, size);
    output_frame(FRAME_FETCH_ENTRY, entry, sizeof(entry));
}

static void file_fetch(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    u64 size;

    if (!transfer_begin(c, id, payload, length)) {
        return;
    }
    if (!file_open(c, BLOCK_PATH(c), c->argument[PATH_LENGTH])) {
        transfer_fail(c, "file.not_found", " does not exist in the guest");
        return;
    }
    output_open(c, id);
    if (file_field(payload, length, TAG_CONTENTS, &size) == NULL) {
        print_entry(c->argument[LENGTH]);
    }
    output_send();
    c->produce = produce_pieces;
    c->flags |= FLAG_TRANSFER;
    c->exec = EXEC_PRODUCE;
    exec_pump(c);
}

static void file_frame(struct connection *c, u32 kind, u64 id, const u8 *payload, u32 length)
{
    if (kind == FRAME_STORE) {
        store_begin(c, id, payload, length);
    } else if (kind == FRAME_FETCH) {
        file_fetch(c, id, payload, length);
    } else if (c->exec == EXEC_FILE && c->exec_id == id) {
        if (kind == FRAME_STORE_ENTRY) {
            store_entry(c, payload, length);
        } else if (kind == FRAME_STORE_DATA) {
            store_data(c, payload, length);
        }
    }
    /* Anything else is of a tree that was refused, or of an earlier life. */
}
