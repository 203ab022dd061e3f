#include "command_line.h"
#include "memory.h"
#include "text.h"

HOT struct command_line command_line;

#define COMMAND_LINE_MAX 4096

/* Reads a number, hexadecimal after 0x, and moves `*p` behind it. */
static u64 read_number(const u8 **p)
{
    const u8 *at = *p;
    u64 value = 0;
    u64 base = 10;

    if (at[0] == '0' && (at[1] | 0x20) == 'x') {
        base = 16;
        at += 2;
    }
    for (;; at++) {
        u32 digit = hex_digit(*at);
        if (digit >= base) {
            break;
        }
        value = value * base + digit;
    }
    *p = at;
    return value;
}

/* Eight hexadecimal digits at once: the usual form of a base address, and every emulated
 * instruction counts. The first digit is in the lowest byte of `digits`. */
static u32 read_eight_digits(u64 digits)
{
    u64 x = (digits & 0x0f0f0f0f0f0f0f0f) + 9 * (digits >> 6 & 0x0101010101010101);
    x = __builtin_bswap64(x);
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (u32)(x | x >> 16);
}

/* SIZE@BASE:GSI */
static void read_device(const u8 *p, const u8 *end)
{
    struct mmio_device *device = &command_line.devices[command_line.device_count];

    p = find(p, end, '@');
    if (p == end || command_line.device_count == COMMAND_LINE_DEVICES) {
        return;
    }
    p++;
    if (load16(p) == ('0' | 'x' << 8) && end - p > 10 && p[10] == ':') {
        device->base = read_eight_digits(load64(p + 2));
        p += 10;
    } else {
        device->base = read_number(&p);
    }
    if (*p != ':') {
        return;
    }
    p++;
    device->gsi = (u32)read_number(&p);
    command_line.device_count++;
}

/* ADDRESS:VALUE, or ADDRESS alone for the value 0. */
static struct register_write read_register_write(const u8 *p)
{
    struct register_write write = {.given = true};

    write.address = read_number(&p);
    if (*p == ':') {
        p++;
        write.value = (u8)read_number(&p);
    }
    return write;
}

static COLD void read_option(const u8 *p, const u8 *end)
{
    u64 length = (u64)(end - p);

    if (length > 15 && equal(p, "vmoon.poweroff=", 15)) {
        command_line.poweroff = read_register_write(p + 15);
    } else if (length > 12 && equal(p, "vmoon.reset=", 12)) {
        command_line.reset = read_register_write(p + 12);
    } else if (length == 10 && equal(p, "vmoon.edge", 10)) {
        command_line.edge = true;
    } else if (length > 10 && equal(p, "vmoon.run=", 10)) {
        command_line.run = p + 10;
        command_line.run_length = (u32)length - 10;
    }
}

static void command_line_read(const u8 *text)
{
    const u64 virtio_mm = 0x6d6d5f6f69747269; /* "irtio_mm" */
    const u64 vmoon = 0x2e6e6f6f6d76;         /* "vmoon." */
    const u8 *end = find(text, text + COMMAND_LINE_MAX, 0);

    while (text < end) {
        const u8 *word_end = find(text, end, ' ');
        u64 start = load64(text);
        if (word_end - text > 20 && load64(text + 1) == virtio_mm) {
            read_device(text + 19, word_end);
        } else if ((start & 0xffffffffffff) == vmoon) {
            read_option(text, word_end);
        }
        text = word_end + 1;
    }
}
