#include "text.h"

static const char digits[16] = "0123456789abcdef";

static u32 hex_digit(u8 c)
{
    if (c >= '0' && c <= '9') {
        return (u32)c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? (u32)c - 'a' + 10 : 16;
}

static u64 text_length(const char *text)
{
    u64 length = 0;

    while (text[length] != 0) {
        length++;
    }
    return length;
}

/* Two digits for a byte, the first in the low half. */
static u16 hex_pair(u8 byte) { return (u16)(digits[byte >> 4] | digits[byte & 15] << 8); }

static void text_hex(u8 *to, u64 value)
{
    for (u32 i = 0; i < 8; i++) {
        ((struct unaligned16 *)to)[i].value = hex_pair((u8)(value >> (56 - 8 * i)));
    }
}

static u8 *text_decimal(u8 *to, u64 value)
{
    u8 reversed[20];
    u32 count = 0;

    do {
        reversed[count++] = (u8)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count != 0) {
        *to++ = reversed[--count];
    }
    return to;
}

static void text_hex_bytes(u8 *to, const u8 *bytes, u64 length)
{
    for (u64 i = 0; i < length; i++) {
        ((struct unaligned16 *)to)[i].value = hex_pair(bytes[i]);
    }
}

static bool text_parse_hex_bytes(u8 *to, const u8 *from, u64 length)
{
    if ((length & 1) != 0) {
        return false;
    }
    for (u64 i = 0; i < length; i += 2) {
        u32 high = hex_digit(from[i]);
        u32 low = hex_digit(from[i + 1]);
        if ((high | low) > 15) {
            return false;
        }
        to[i / 2] = (u8)(high << 4 | low);
    }
    return true;
}

static bool text_parse_decimal(const u8 *from, u64 length, u64 *value)
{
    u64 total = 0;

    if (length == 0) {
        return false;
    }
    for (u64 i = 0; i < length; i++) {
        u64 digit = (u64)from[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(total, 10, &total) ||
            __builtin_add_overflow(total, digit, &total)) {
            return false;
        }
    }
    *value = total;
    return true;
}
