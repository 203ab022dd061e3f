/* Numbers to text and back. */
#pragma once
#include "types.h"

/* The value of a hexadecimal digit, or 16. */
static u32 hex_digit(u8 c);
static u64 text_length(const char *text);
/* Writes 16 hexadecimal digits. */
static void text_hex(u8 *to, u64 value);
/* Writes a decimal number, at most 20 digits, and returns the end. */
static u8 *text_decimal(u8 *to, u64 value);
/* Writes two digits a byte. */
static void text_hex_bytes(u8 *to, const u8 *bytes, u64 length);
/* Reads two digits a byte; false when there is anything else or an odd number of them. */
static bool text_parse_hex_bytes(u8 *to, const u8 *digits, u64 length);
/* Reads a decimal number that fits; false otherwise. */
static bool text_parse_decimal(const u8 *digits, u64 length, u64 *value);
