/* The agent protocol's frames: a header of 16 bytes (length u32, kind u16, flags u16, id u64) and
 * the payload. The kinds, and the fields of structured payloads, are those of the vmoon-protocol
 * crate. */
#pragma once
#include "connection.h"
#include "types.h"

enum frame_kind {
    FRAME_LIFE = 0x01,
    FRAME_SHUTDOWN = 0x02,
    FRAME_WATCH = 0x03,
    FRAME_UNWATCH = 0x04,
    FRAME_EXEC = 0x10,
    FRAME_STDIN = 0x11,
    FRAME_SIGNAL = 0x12,
    FRAME_STORE = 0x20,
    FRAME_FETCH = 0x21,
    FRAME_STORE_ENTRY = 0x22,
    FRAME_STORE_DATA = 0x23,
    FRAME_STORE_LEAVE = 0x24,
    FRAME_READY = 0x81,
    FRAME_LIFE_DONE = 0x82,
    FRAME_DONE = 0x83,
    FRAME_ERROR = 0x84,
    FRAME_OBSERVED = 0x86,
    FRAME_STDOUT = 0x90,
    FRAME_STDERR = 0x91,
    FRAME_EXIT = 0x92,
    FRAME_FETCH_ENTRY = 0xa2,
    FRAME_FETCH_DATA = 0xa3,
};

#define FRAME_HEADER 16
#define FRAME_LIFE_LENGTH 48 /* of its payload */
#define FRAME_PAYLOAD_MAX ((u32)KIB(64))
#define FIELD_HEADER 8
#define PROTOCOL_VERSION 1

/* Writes a header. */
INLINE void frame_header(u8 *to, u32 length, u32 kind, u64 id)
{
    store64(to, length | (u64)kind << 32);
    store64(to + 8, id);
}

/* Whether the bytes are one whole FRAME_EXEC: length, kind and flags in one comparison. */
INLINE bool frame_is_command(const u8 *bytes, u32 length)
{
    return load64(bytes) == ((u64)FRAME_EXEC << 32) + length - FRAME_HEADER;
}

/* Whether the bytes begin with a whole FRAME_LIFE. */
INLINE bool frame_is_life(const u8 *bytes, u32 length)
{
    return load64(bytes) == ((u64)FRAME_LIFE << 32 | FRAME_LIFE_LENGTH) &&
           length >= FRAME_HEADER + FRAME_LIFE_LENGTH;
}

/* Takes bytes of a control or command connection, cut anywhere, and calls agent_frame for each
 * whole frame. Resets the connection when they are no frames. */
static void frame_bytes(struct connection *c, const u8 *bytes, u32 length);
/* Prints the output in a sequence of whole frames on the console. */
static void frames_print(const u8 *frames, u32 length);
