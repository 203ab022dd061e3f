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
static bool parse(const u8 *at, u32 length)
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

INLINE struct connection *of_timeout(struct timer *timer)
{
    return (struct connection *)((u8 *)timer - __builtin_offsetof(struct connection, timeout));
}

static void timed_out(struct timer *timer) { exec_kill(of_timeout(timer), SIGNAL_KILL); }

INLINE void end(struct connection *c, u32 code, u32 signal)
{
    output_exit(code, signal, clock_nanoseconds(timestamp() - c->exec_start));
    output_send();
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

static COLD void refuse(struct connection *c, u64 id, const char *text, u32 length)
{
    output_open(c, id);
    output_frame(FRAME_ERROR, text, length);
    output_send();
}

static void exec_run(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    static const char busy[] = "vm.state\0a command is running on this connection";
    static const char malformed[] = "vm.spec\0the command is cut short";
    i32 code;

    if (unlikely(c->exec != EXEC_NONE)) {
        refuse(c, id, busy, sizeof(busy) - 1);
        return;
    }
    c->exec_start = timestamp();
    if (unlikely(!parse(payload, length))) {
        refuse(c, id, malformed, sizeof(malformed) - 1);
        return;
    }
    c->exec_id = id;
    output_open(c, id);
    code = commands_run(c);
    if (likely(code >= 0)) {
        end(c, (u32)code, 0);
        return;
    }
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
    }
}

static void exec_print(struct connection *c) { output_open(c, c->exec_id); }

static void finish(struct connection *c, u32 code, u32 signal)
{
    settle(c);
    end(c, code, signal);
    if (c->peer_shutdown != 0) {
        connection_close(c);
    }
}

static void exec_finish(struct connection *c, u32 code) { finish(c, code, 0); }

static void exec_pump(struct connection *c)
{
    while (c->exec == EXEC_PRODUCE && c->backlog_length == 0 && c->state == STATE_OPEN) {
        exec_print(c);
        if (c->produce(c)) {
            exec_finish(c, 0);
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
