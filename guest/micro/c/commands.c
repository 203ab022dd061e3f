#include "commands.h"
#include "balloon.h"
#include "block.h"
#include "clock.h"
#include "exec.h"
#include "files.h"
#include "frame.h"
#include "memory.h"
#include "memory_layout.h"
#include "output.h"
#include "power.h"
#include "service.h"
#include "store.h"
#include "text.h"
#include "touched.h"
#include "watch.h"

#define NANOSECONDS_A_MILLISECOND 1000000ul

/* A name of at most eight letters as a number, for `switch`. */
#define NAME(a, b, c, d, e, f, g, h)                                                               \
    ((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 |                 \
     (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)

static i32 command_fail(i32 code, const char *text)
{
    output_kind(FRAME_STDERR);
    output_text(text);
    return code;
}

static bool command_number(u32 word, u64 *value)
{
    return word < word_count && text_parse_decimal(words[word].text, words[word].length, value);
}

static void print_words(u32 from)
{
    for (u32 i = from; i < word_count; i++) {
        if (i != from) {
            output_bytes(" ", 1);
        }
        output_bytes(words[i].text, words[i].length);
    }
}

COMMAND command_echo(void)
{
    print_words(1);
    output_bytes("\n", 1);
    return 0;
}

COMMAND command_exit(void)
{
    u64 code = 0;

    if (word_count > 1 && !command_number(1, &code)) {
        return command_fail(2, "usage: exit [N]\n");
    }
    return (i32)(code & 0xff);
}

static void woken(struct timer *timer)
{
    struct connection *c =
        (struct connection *)((u8 *)timer - __builtin_offsetof(struct connection, wake));

    exec_print(c);
    exec_finish(c, 0);
}

COMMAND command_sleep(struct connection *c)
{
    u64 milliseconds, nanoseconds;

    if (!command_number(1, &milliseconds) ||
        __builtin_mul_overflow(milliseconds, NANOSECONDS_A_MILLISECOND, &nanoseconds)) {
        return command_fail(2, "usage: sleep MILLISECONDS\n");
    }
    if (nanoseconds == 0) {
        return 0;
    }
    c->exec = EXEC_SLEEP;
    c->wake.fire = woken;
    timer_start(&c->wake, nanoseconds);
    return EXEC_PENDING;
}

COMMAND command_dirty(void)
{
    static u64 calls; /* without a seed, each call is another */
    u64 pages;
    u64 seed = 0;

    if (!command_number(1, &pages) || (word_count > 2 && !command_number(2, &seed))) {
        return command_fail(2, "usage: dirty PAGES [SEED]\n");
    }
    if (pages > touched_available()) {
        return command_fail(1, "dirty: there are fewer pages\n");
    }
    touched_write(pages, word_count > 2 ? seed : ~calls++);
    return 0;
}

COMMAND command_checksum(void)
{
    output_hex(touched_hash(store_hash(0)));
    output_bytes("\n", 1);
    return 0;
}

static void print_memory(const char *name, u64 bytes)
{
    output_text(name);
    output_decimal(bytes >> 10);
    output_text(" kB\n");
}

COMMAND command_meminfo(void)
{
    print_memory("MemTotal:       ", memory.total - balloon_pages() * PAGE_SIZE);
    print_memory("MemFree:        ", (memory.region_pages - balloon_pages()) * PAGE_SIZE);
    print_memory("MemAvailable:   ", (memory.region_pages - balloon_pages()) * PAGE_SIZE);
    return 0;
}

static void print_padded(u64 value, u64 largest_unit)
{
    for (; largest_unit > value && largest_unit > 1; largest_unit /= 10) {
        output_bytes("0", 1);
    }
    output_decimal(value);
}

COMMAND command_uptime(void)
{
    u64 centiseconds = clock_now() / 10000000;

    output_decimal(centiseconds / 100);
    output_bytes(".", 1);
    print_padded(centiseconds % 100, 10);
    output_bytes("\n", 1);
    return 0;
}

COMMAND command_date(void)
{
    u64 now = clock_wall();

    if (now == 0) {
        return command_fail(1, "date: the host has not told the time\n");
    }
    output_decimal(now / 1000000000);
    output_bytes(".", 1);
    print_padded(now % 1000000000, 100000000);
    output_bytes("\n", 1);
    return 0;
}

#define LINE 64
#define LINES_SIZE ((u32)KIB(64) - LINE) /* whole lines, and room for a frame's header */
LARGE static u8 lines[LINES_SIZE];

/* argument[0]: bytes still to print; argument[1]: those printed. */
static bool produce_lines(struct connection *c)
{
    u32 within = (u32)(c->argument[1] % LINE);
    u64 left = c->argument[0];
    u32 some = left < LINES_SIZE - within ? (u32)left : LINES_SIZE - within;

    some = output_constant(lines + within, some);
    c->argument[0] -= some;
    c->argument[1] += some;
    return c->argument[0] == 0;
}

COMMAND command_lines(struct connection *c)
{
    if (!command_number(1, &c->argument[0])) {
        return command_fail(2, "usage: lines BYTES\n");
    }
    if (lines[LINE - 1] == 0) {
        fill(lines, 'x', LINE - 1);
        lines[LINE - 1] = '\n';
        copy(lines + LINE, lines, LINES_SIZE - LINE); /* each line from the one before */
    }
    c->argument[1] = 0;
    c->produce = produce_lines;
    return EXEC_PRODUCING;
}

COMMAND command_echo_server(struct connection *c)
{
    u64 port;

    if (!command_number(1, &port) || port > 0xffffffff) {
        return command_fail(2, "usage: echo-server PORT\n");
    }
    if (!service_listen(c, (u32)port)) {
        return command_fail(1, "echo-server: the port is in use\n");
    }
    c->argument[0] = port;
    return EXEC_PENDING;
}

COMMAND command_connect(struct connection *c)
{
    u64 port;

    if (!command_number(1, &port) || port > 0xffffffff) {
        return command_fail(2, "usage: connect PORT TEXT\n");
    }
    if (!service_connect(c, (u32)port, words + 2, word_count - 2)) {
        return command_fail(1, "connect: out of memory\n");
    }
    return EXEC_PENDING;
}

COMMAND command_ready(struct connection *c)
{
    bool declared;

    if (word_count != 2 || words[1].length == 0 || words[1].length > READY_LENGTH) {
        return command_fail(2, "usage: ready NAME (at most 63 bytes)\n");
    }
    declared = ready_declare(words[1].text, words[1].length);
    exec_print(c); /* whoever waited has been answered in between */
    return declared ? 0 : command_fail(1, "ready: there are too many names\n");
}

COMMAND command_poweroff(struct connection *c)
{
    output_end(0, 0, clock_nanoseconds(timestamp() - c->exec_start));
    vsock_drain();
    power_off();
}

COMMAND command_unknown(void)
{
    if (word_count == 0) {
        return 0;
    }
    output_kind(FRAME_STDERR);
    output_text("vmoon micro: ");
    output_bytes(words[0].text, words[0].length);
    output_text(": command not found\n");
    return 127;
}

INLINE i32 commands_run(struct connection *c)
{
    u64 length = words[0].length;
    u64 name;

    if (word_count == 0 || length == 0) {
        return command_unknown();
    }
    if (length > 8) {
        return length == 11 && equal(words[0].text, "echo-server", 11) ? command_echo_server(c)
                                                                       : command_unknown();
    }
    name = load64(words[0].text) & (~0ul >> (64 - 8 * length));
    switch (name) {
    case NAME('t', 'r', 'u', 'e', 0, 0, 0, 0):
        return 0;
    case NAME('f', 'a', 'l', 's', 'e', 0, 0, 0):
        return 1;
    case NAME('e', 'c', 'h', 'o', 0, 0, 0, 0):
        return command_echo();
    case NAME('e', 'x', 'i', 't', 0, 0, 0, 0):
        return command_exit();
    case NAME('s', 'l', 'e', 'e', 'p', 0, 0, 0):
        return command_sleep(c);
    case NAME('p', 'u', 't', 0, 0, 0, 0, 0):
        return command_put();
    case NAME('g', 'e', 't', 0, 0, 0, 0, 0):
        return command_get();
    case NAME('c', 'a', 't', 0, 0, 0, 0, 0):
        return command_cat(c);
    case NAME('k', 'e', 'y', 's', 0, 0, 0, 0):
        return command_keys(c);
    case NAME('d', 'i', 'r', 't', 'y', 0, 0, 0):
        return command_dirty();
    case NAME('c', 'h', 'e', 'c', 'k', 's', 'u', 'm'):
        return command_checksum();
    case NAME('m', 'e', 'm', 'i', 'n', 'f', 'o', 0):
        return command_meminfo();
    case NAME('u', 'p', 't', 'i', 'm', 'e', 0, 0):
        return command_uptime();
    case NAME('d', 'a', 't', 'e', 0, 0, 0, 0):
        return command_date();
    case NAME('r', 'a', 'n', 'd', 'o', 'm', 0, 0):
        return command_random(c);
    case NAME('l', 'i', 'n', 'e', 's', 0, 0, 0):
        return command_lines(c);
    case NAME('b', 'l', 'k', 0, 0, 0, 0, 0):
        return command_block(c);
    case NAME('c', 'o', 'n', 'n', 'e', 'c', 't', 0):
        return command_connect(c);
    case NAME('r', 'e', 'a', 'd', 'y', 0, 0, 0):
        return command_ready(c);
    case NAME('p', 'a', 'n', 'i', 'c', 0, 0, 0):
        panic("asked for by a command");
    case NAME('h', 'a', 'n', 'g', 0, 0, 0, 0):
        hang();
    case NAME('p', 'o', 'w', 'e', 'r', 'o', 'f', 'f'):
        return command_poweroff(c);
    default:
        return command_unknown();
    }
}
