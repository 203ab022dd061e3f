#include "frame.h"
#include "agent.h"
#include "console.h"
#include "memory.h"
#include "memory_layout.h"

/* Where the parts of a frame are put together. */
static u8 *assembly(struct connection *c)
{
    return c->frame_block != NULL ? c->frame_block : c->inline_frame;
}

/* The header is complete: how long the frame is, and where it will be kept. False on an error. */
static bool begin(struct connection *c)
{
    const u8 *header = assembly(c);
    u32 length = load32(header);

    if (length > FRAME_PAYLOAD_MAX || load16(header + 6) != 0) {
        return false;
    }
    if (load16(header + 4) == FRAME_STDIN) {
        /* Commands here read nothing. */
        c->frame_skip = length;
        c->frame_have = 0;
        c->frame_need = 0;
        return true;
    }
    c->frame_need = FRAME_HEADER + length;
    if (c->frame_need > sizeof(c->inline_frame)) {
        c->frame_block = block_allocate();
        if (c->frame_block == NULL) {
            return false;
        }
        copy(c->frame_block, c->inline_frame, FRAME_HEADER);
    }
    return true;
}

/* Takes bytes for a frame that arrives in parts; returns how many, or none after an error. */
static u32 assemble(struct connection *c, const u8 *bytes, u32 length)
{
    u32 want = (c->frame_need != 0 ? c->frame_need : FRAME_HEADER) - c->frame_have;

    if (want > length) {
        want = length;
    }
    copy(assembly(c) + c->frame_have, bytes, want);
    c->frame_have += want;
    if (c->frame_need == 0 && c->frame_have == FRAME_HEADER && !begin(c)) {
        connection_reset(c);
        return 0;
    }
    if (c->frame_need != 0 && c->frame_have == c->frame_need) {
        u8 *block = c->frame_block;
        const u8 *frame = assembly(c);
        u32 payload = c->frame_need - FRAME_HEADER;
        c->frame_have = 0;
        c->frame_need = 0;
        c->frame_block = NULL;
        agent_frame(c, load16(frame + 4), load64(frame + 8), frame + FRAME_HEADER, payload);
        if (block != NULL) {
            block_free(block);
        }
    }
    return want;
}

static void take_frames(struct connection *c, const u8 *bytes, u32 length)
{
    while (length != 0) {
        u32 taken;
        if (unlikely(c->frame_skip != 0)) {
            taken = length < c->frame_skip ? length : c->frame_skip;
            c->frame_skip -= taken;
        } else if (likely(c->frame_have == 0 && length >= FRAME_HEADER)) {
            /* The usual case: the frame is whole in its packet and is read where it lies. */
            u64 head = load64(bytes);
            u32 payload = (u32)head;
            if (likely(payload <= length - FRAME_HEADER && head >> 48 == 0 &&
                       payload <= FRAME_PAYLOAD_MAX)) {
                agent_frame(c, (u16)(head >> 32), load64(bytes + 8), bytes + FRAME_HEADER, payload);
                taken = FRAME_HEADER + payload;
            } else {
                taken = assemble(c, bytes, length);
            }
        } else {
            taken = assemble(c, bytes, length);
        }
        if (taken == 0 || c->state != STATE_OPEN) {
            return;
        }
        bytes += taken;
        length -= taken;
    }
}

static void frame_bytes(struct connection *c, const u8 *bytes, u32 length)
{
    take_frames(c, bytes, length);
    if ((c->frame_have | c->frame_skip) != 0) {
        c->flags |= FLAG_PARTIAL;
    } else {
        c->flags &= (u8)~FLAG_PARTIAL;
    }
}

static COLD void frames_print(const u8 *frames, u32 length)
{
    while (length >= FRAME_HEADER) {
        u32 payload = load32(frames);
        u32 kind = load16(frames + 4);
        if (kind == FRAME_STDOUT || kind == FRAME_STDERR) {
            console_write(frames + FRAME_HEADER, payload);
        }
        frames += FRAME_HEADER + payload;
        length -= FRAME_HEADER + payload;
    }
}
