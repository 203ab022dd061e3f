#include "exec.h"
#include "block.h"
#include "clock.h"
#include "commands.h"
#include "cpu.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"
#include "output.h"
#include "service.h"
#include "watch.h"

/* Tags of FRAME_EXEC's fields; see vmoon-protocol's message module. */
enum { TAG_ARGUMENT = 1, TAG_SHELL = 2, TAG_TIMEOUT = 6 };

#define SIGNAL_KILL 9
#define NANOSECONDS_A_MILLISECOND 1000000ul

HOT struct word words[WORDS];
HOT u32 word_count;
HOT static u64 timeout; /* of the command being started, in milliseconds */

/* Splits a shell text at spaces and line ends. */
static void split(const u8 *at, const u8 *end)
{
    while (end > at && (end[-1] == ' ' || end[-1] == '\n')) {
        end--;
    }
    for (;;) {
        const u8 *word;
        while (at < end && *at == ' ') {
            at++;
        }
        if (at == end) {
            return;
        }
        word = at;
        at = word_count == WORDS - 1 ? end : find(at, end, ' ');
        words[word_count++] = (struct word){word, (u64)(at - word)};
    }
}

/* Reads the fields; false when they are cut short. */
static NOINLINE bool parse(const u8 *at, u32 length)
{
    const u8 *end = at + length;

    word_count = 0;
    timeout = 0;
    while (at < end) {
        u64 head;
        u64 size;
        if (end - at < FIELD_HEADER) {
            return false;
        }
        head = load64(at);
        size = head >> 32;
        at += FIELD_HEADER;
        if (size > (u64)(end - at)) {
            return false;
        }
        if ((u16)head == TAG_ARGUMENT) {
            if (word_count < WORDS) {
                words[word_count++] = (struct word){at, size};
            }
        } else if ((u16)head == TAG_SHELL) {
            split(at, at + size);
        } else if ((u16)head == TAG_TIMEOUT && size == 8) {
            timeout = load64(at);
        }
        at += size;
    }
    return true;
}

/* The shortest way through: a shell text of one word of at most eight letters and nothing else. */
INLINE bool parse_one_word(const u8 *payload, u32 length)
{
    const u64 ones = 0x0101010101010101;
    u64 size = length - FIELD_HEADER;
    u64 text, beyond;

    if (load64(payload) != (TAG_SHELL | size << 32) || size - 1 >= 8) {
        return false;
    }
    beyond = size == 8 ? 0 : ~0ul << 8 * size;
    text = load64(payload + FIELD_HEADER) | beyond;
    if (((text - ones * 0x21) & ~text & ones * 0x80) != 0) { /* a byte below '!' */
        return false;
    }
    timeout = 0;
    word_count = 1;
    words[0] = (struct word){payload + FIELD_HEADER, size};
    return true;
}

INLINE struct connection *of_timeout(struct timer *timer)
{
    return (struct connection *)((u8 *)timer - __builtin_offsetof(struct connection, timeout));
}

static void timed_out(struct timer *timer) { exec_kill(of_timeout(timer), SIGNAL_KILL); }

INLINE void end(struct connection *c, u32 code, u32 signal)
{
    output_end(code, signal, clock_nanoseconds(timestamp() - c->exec_start));
}

/* A command that outlived its function has ended: its timers and memory go. */
static void settle(struct connection *c)
{
    c->exec = EXEC_NONE;
    timer_stop(&c->wake);
    timer_stop(&c->timeout);
    if (c->exec_block != NULL) {
        block_free(c->exec_block);
        c->exec_block = NULL;
    }
}

/* The command goes on after its function has returned. */
static NOINLINE void go_on(struct connection *c, i32 code)
{
    output_send();
    if (timeout != 0) {
        u64 nanoseconds;
        if (__builtin_mul_overflow(timeout, NANOSECONDS_A_MILLISECOND, &nanoseconds)) {
            nanoseconds = ~0ul;
        }
        c->timeout.fire = timed_out;
        timer_start(&c->timeout, nanoseconds);
    }
    if (code == EXEC_PRODUCING) {
        c->exec = EXEC_PRODUCE;
        exec_pump(c);
    } else if (c->exec == EXEC_SERVE) {
        watch_opened();
    }
}

/* Something is wrong with the request. */
static COLD void refuse(struct connection *c, u64 id)
{
    static const char busy[] = "vm.state\0a command is running on this connection";
    static const char malformed[] = "vm.spec\0the command is cut short";

    output_open(c, id);
    if (c->exec != EXEC_NONE) {
        output_frame(FRAME_ERROR, busy, sizeof(busy) - 1);
    } else {
        output_frame(FRAME_ERROR, malformed, sizeof(malformed) - 1);
    }
    output_send();
}

static void exec_run(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    i32 code;

    if (unlikely(c->exec != EXEC_NONE)) {
        refuse(c, id);
        return;
    }
    c->exec_start = timestamp();
    if (!parse_one_word(payload, length) && unlikely(!parse(payload, length))) {
        refuse(c, id);
        return;
    }
    c->exec_id = id;
    output_open(c, id);
    code = commands_run(c);
    if (likely(code >= 0)) {
        end(c, (u32)code, 0);
    } else {
        go_on(c, code);
    }
}

static void exec_print(struct connection *c) { output_open(c, c->exec_id); }

static void finish(struct connection *c, u32 code, u32 signal)
{
    settle(c);
    end(c, code, signal);
    if ((c->flags & (FLAG_PEER_RECEIVES_NOT | FLAG_PEER_SENDS_NOT)) != 0) {
        connection_close(c);
    }
}

static void exec_finish(struct connection *c, u32 code) { finish(c, code, 0); }

/* All is printed. */
static void produced(struct connection *c)
{
    if ((c->flags & FLAG_TRANSFER) == 0) {
        exec_finish(c, 0);
        return;
    }
    c->flags &= (u8)~FLAG_TRANSFER;
    settle(c);
    output_frame(FRAME_DONE, NULL, 0);
    output_send();
}

static void exec_pump(struct connection *c)
{
    while (c->exec == EXEC_PRODUCE && c->backlog_length == 0 && c->state == STATE_OPEN) {
        exec_print(c);
        if (c->produce(c)) {
            produced(c);
        } else {
            output_send();
        }
    }
}

/* Undoes what a pending command holds besides its memory. */
static void stop(struct connection *c)
{
    switch (c->exec) {
    case EXEC_SERVE:
        service_stop(c);
        break;
    case EXEC_CLIENT:
        service_client_abandon(c);
        break;
    case EXEC_BLOCK:
        block_forget(c);
        c->exec_block = NULL; /* the device still uses it; command_block.c frees it later */
        break;
    default:
        break;
    }
}

static void exec_kill(struct connection *c, u32 signal)
{
    stop(c);
    exec_print(c);
    finish(c, 128 + signal, signal);
}

static void exec_abandon(struct connection *c)
{
    if (c->exec != EXEC_NONE) {
        stop(c);
        settle(c);
    }
}
