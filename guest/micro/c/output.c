#include "output.h"
#include "frame.h"
#include "memory.h"
#include "text.h"

/* Room that output leaves for the frame that ends a command. */
#define EXIT_FRAME (FRAME_HEADER + 16)

HOT static struct {
    struct connection *connection;
    u64 id;
    u8 *start; /* of the packet's payload */
    u8 *frame; /* header of the frame being written */
    u8 *at;    /* where the next byte goes */
    u32 slot;
    u32 kind;
} out;

static void output_open(struct connection *c, u64 id)
{
    u32 slot = vsock_slot();
    u8 *start = vsock_slot_data(slot);

    out.connection = c;
    out.id = id;
    out.slot = slot;
    out.start = start;
    out.frame = start;
    out.at = start + FRAME_HEADER;
    out.kind = FRAME_STDOUT;
}

/* Closes the frame being written, if there is anything in it. */
INLINE void close_frame(void)
{
    u32 length = (u32)(out.at - out.frame) - FRAME_HEADER;

    if (length != 0) {
        frame_header(out.frame, length, out.kind, out.id);
        out.frame = out.at;
        out.at += FRAME_HEADER;
    }
}

static void output_send(void)
{
    u32 length;

    close_frame();
    length = (u32)(out.frame - out.start);
    if (length != 0) {
        connection_send(out.connection, out.slot, length);
    } else {
        vsock_slot_release(out.slot);
    }
}

static void output_kind(u32 kind)
{
    close_frame();
    out.kind = kind;
}

static u32 room(void)
{
    u8 *end = out.start + SLOT_PAYLOAD - EXIT_FRAME;

    return out.at < end ? (u32)(end - out.at) : 0;
}

static NOINLINE void next_packet(void)
{
    u32 kind = out.kind;

    output_send();
    output_open(out.connection, out.id);
    out.kind = kind;
}

static void output_bytes(const void *bytes, u64 length)
{
    const u8 *from = bytes;

    while (unlikely(length > room())) {
        u32 some = room();
        copy(out.at, from, some);
        out.at += some;
        from += some;
        length -= some;
        next_packet();
    }
    copy(out.at, from, length);
    out.at += length;
}

static void output_text(const char *text) { output_bytes(text, text_length(text)); }

static u8 *output_reserve(u32 length)
{
    if (room() < length) {
        next_packet();
    }
    return out.at;
}

static void output_written(u32 length) { out.at += length; }

static void output_decimal(u64 value)
{
    u8 *at = output_reserve(20);

    output_written((u32)(text_decimal(at, value) - at));
}

static void output_hex(u64 value)
{
    text_hex(output_reserve(16), value);
    output_written(16);
}

static void output_frame(u32 kind, const void *payload, u32 length)
{
    output_kind(kind);
    output_bytes(payload, length);
    if (length == 0) {
        frame_header(out.frame, 0, kind, out.id);
        out.frame = out.at;
        out.at += FRAME_HEADER;
    }
    output_kind(FRAME_STDOUT);
}

static void output_exit(u32 code, u32 signal, u64 nanoseconds)
{
    close_frame();
    frame_header(out.frame, 16, FRAME_EXIT, out.id);
    store64(out.frame + 16, code | (u64)signal << 32);
    store64(out.frame + 24, nanoseconds);
    out.frame += EXIT_FRAME;
    out.at = out.frame + FRAME_HEADER;
}
