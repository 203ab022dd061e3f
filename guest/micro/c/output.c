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
    u8 *at;    /* where the next byte goes; NULL until there is a packet */
    u32 slot;
    u32 kind;
} out;

INLINE void output_open(struct connection *c, u64 id)
{
    out.connection = c;
    out.id = id;
    out.at = NULL;
}

/* Takes a slot for a packet. */
static NOINLINE void begin_packet(void)
{
    u8 *start;

    out.slot = vsock_slot();
    start = vsock_slot_data(out.slot);
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

    if (out.at == NULL) {
        return;
    }
    close_frame();
    length = (u32)(out.frame - out.start);
    if (length != 0) {
        connection_send(out.connection, out.slot, length);
    } else {
        vsock_slot_release(out.slot);
    }
    out.at = NULL;
}

static void output_kind(u32 kind)
{
    if (out.at == NULL) {
        begin_packet();
    }
    close_frame();
    out.kind = kind;
}

/* None before the first packet. */
INLINE u64 room(void)
{
    u64 end = (u64)(out.start + SLOT_PAYLOAD - EXIT_FRAME);

    return out.at != NULL && (u64)out.at < end ? end - (u64)out.at : 0;
}

static NOINLINE void next_packet(void)
{
    u32 kind = out.kind;

    if (out.at == NULL) {
        begin_packet();
        return;
    }
    output_send();
    begin_packet();
    out.kind = kind;
}

static void output_bytes(const void *bytes, u64 length)
{
    const u8 *from = bytes;

    while (length > room()) {
        u64 some = room();
        copy(out.at, from, some);
        out.at += some;
        from += some;
        length -= some;
        next_packet();
    }
    copy(out.at, from, length);
    out.at += length;
}

static u32 output_constant(const u8 *bytes, u32 length)
{
    struct connection *c = out.connection;
    u32 credit = c->kind == KIND_COMMAND && c->state == STATE_OPEN ? connection_credit(c) : 0;
    u32 slot;

    if (credit < FRAME_HEADER + OUTPUT_PIECE) {
        length = length < OUTPUT_PIECE ? length : OUTPUT_PIECE;
        output_bytes(bytes, length);
        return length;
    }
    if (length > credit - FRAME_HEADER) {
        length = credit - FRAME_HEADER;
    }
    slot = vsock_slot();
    frame_header(vsock_slot_data(slot), length, FRAME_STDOUT, out.id);
    c->sent += FRAME_HEADER + length;
    c->advertised = c->fwd_cnt;
    vsock_send_constant(slot, c->ports >> 32 | c->ports << 32, FRAME_HEADER, bytes, length,
                        BUF_ALLOC, c->fwd_cnt);
    return length;
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

INLINE void exit_frame(u8 *to, u32 code, u32 signal, u64 nanoseconds)
{
    frame_header(to, 16, FRAME_EXIT, out.id);
    store64(to + 16, code | (u64)signal << 32);
    store64(to + 24, nanoseconds);
}

/* The end of a command that has printed something, or cannot be sent at once. */
static NOINLINE void end_packet(u32 code, u32 signal, u64 nanoseconds)
{
    if (out.at == NULL) {
        begin_packet();
    }
    close_frame();
    exit_frame(out.frame, code, signal, nanoseconds);
    out.frame += EXIT_FRAME;
    out.at = out.frame + FRAME_HEADER;
    output_send();
}

INLINE void output_end(u32 code, u32 signal, u64 nanoseconds)
{
    struct connection *c = out.connection;

    if (likely(out.at == NULL && load32(&c->state) == IDLE_COMMAND &&
               connection_has_credit(c, EXIT_FRAME))) {
        u32 slot = vsock_slot();
        exit_frame(vsock_slot_data(slot), code, signal, nanoseconds);
        connection_transmit(c, slot, EXIT_FRAME);
        return;
    }
    end_packet(code, signal, nanoseconds);
}
