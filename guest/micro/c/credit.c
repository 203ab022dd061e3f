#include "credit.h"
#include "exec.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"

/* An echoed packet that is shorter is copied, which is cheaper than lending out its buffer. */
#define ECHO_COPIED 256

static void credit_release(struct connection *c)
{
    if (c->backlog != NULL) {
        block_free(c->backlog);
        c->backlog = NULL;
        c->backlog_length = 0;
        c->flags &= (u8)~FLAG_BACKLOG;
    }
    if (c->frame_block != NULL) {
        block_free(c->frame_block);
        c->frame_block = NULL;
    }
}

/* Keeps data until there is credit; false when there is no room. */
static bool keep(struct connection *c, const u8 *data, u32 length)
{
    if (c->backlog == NULL) {
        c->backlog = block_allocate();
        c->backlog_start = 0;
        if (c->backlog == NULL) {
            return false;
        }
        c->flags |= FLAG_BACKLOG;
        send_control(c, OP_CREDIT_REQUEST, 0);
    }
    if (length > BLOCK_SIZE - c->backlog_length) {
        return false;
    }
    if (length > BLOCK_SIZE - c->backlog_length - c->backlog_start) {
        copy(c->backlog, c->backlog + c->backlog_start, c->backlog_length);
        c->backlog_start = 0;
    }
    copy(c->backlog + c->backlog_start + c->backlog_length, data, length);
    c->backlog_length += length;
    return true;
}

/* Sends what waits, as far as the credit goes. */
static NOINLINE void credit_flush(struct connection *c)
{
    while (c->backlog_length != 0) {
        u32 length = connection_credit(c);
        u32 slot;
        if (length == 0) {
            return;
        }
        if (length > SLOT_PAYLOAD) {
            length = SLOT_PAYLOAD;
        }
        if (length > c->backlog_length) {
            length = c->backlog_length;
        }
        slot = vsock_slot();
        copy(vsock_slot_data(slot), c->backlog + c->backlog_start, length);
        c->backlog_start += length;
        c->backlog_length -= length;
        if (c->kind == KIND_ECHO) {
            c->fwd_cnt += length;
        }
        connection_transmit(c, slot, length);
    }
    block_free(c->backlog);
    c->backlog = NULL;
    c->flags &= (u8)~FLAG_BACKLOG;
    if ((c->flags & FLAG_CLOSE_WHEN_SENT) != 0) {
        c->flags &= (u8)~FLAG_CLOSE_WHEN_SENT;
        connection_close(c);
    } else if (c->exec == EXEC_PRODUCE) {
        exec_pump(c);
    }
}

static void connection_send(struct connection *c, u32 slot, u32 length)
{
    if (likely(load32(&c->state) == IDLE_COMMAND && connection_has_credit(c, length))) {
        connection_transmit(c, slot, length);
        return;
    }
    if (unlikely(c->kind == KIND_CONSOLE)) {
        frames_print(vsock_slot_data(slot), length);
        vsock_slot_release(slot);
        return;
    }
    if (likely(c->state == STATE_OPEN && c->backlog_length == 0 && length <= connection_credit(c))) {
        connection_transmit(c, slot, length);
        return;
    }
    bool kept = c->state == STATE_OPEN && keep(c, vsock_slot_data(slot), length);
    vsock_slot_release(slot);
    if (kept) {
        credit_flush(c);
    } else if (c->state == STATE_OPEN) {
        /* Neither credit nor memory: a part of a stream must not get lost. */
        send_bare(c->ports, OP_SHUTDOWN, SHUTDOWN_RECEIVE | SHUTDOWN_SEND, c->fwd_cnt);
        c->state = STATE_CLOSING;
        credit_release(c);
    }
}

static void connection_echo(struct connection *c, const u8 *data, u32 length)
{
    if (c->backlog_length != 0 || length > connection_credit(c)) {
        if (!keep(c, data, length)) {
            connection_reset(c);
            return;
        }
        credit_flush(c);
        return;
    }
    u32 slot = vsock_slot();
    c->fwd_cnt += length;
    if (length <= ECHO_COPIED) {
        copy(vsock_slot_data(slot), data, length);
        connection_transmit(c, slot, length);
        return;
    }
    c->sent += length;
    c->advertised = c->fwd_cnt;
    vsock_send_received(slot, c->ports >> 32 | c->ports << 32, data, length, BUF_ALLOC,
                        c->fwd_cnt);
}
