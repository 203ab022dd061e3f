/* Fixed-width types and the few macros that every file uses. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int i32;
typedef long i64;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)

_Static_assert(sizeof(u64) == 8 && sizeof(void *) == 8, "a 64-bit target");

/* Variables of the data path, together in one page (link.ld). */
#define HOT __attribute__((section(".hot")))
/* Arrays of which a run touches a small part. They are not part of the image, and what is in them at
 * first is undefined. */
#define LARGE __attribute__((section(".bss.large"), aligned(4096)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))
#define COLD __attribute__((noinline, cold))
#define NORETURN __attribute__((noreturn))
/* A function of the map of this program that a build may leave unused. */
#define INLINE static inline __attribute__((always_inline))

#define PAGE_SIZE 4096ul
#define KIB(n) ((u64)(n) << 10)
#define MIB(n) ((u64)(n) << 20)
#define GIB(n) ((u64)(n) << 30)

/* Loads of any alignment; the compiler makes one move of each. */
struct unaligned16 { u16 value; } __attribute__((packed, may_alias));
struct unaligned32 { u32 value; } __attribute__((packed, may_alias));
struct unaligned64 { u64 value; } __attribute__((packed, may_alias));
INLINE u16 load16(const void *p) { return ((const struct unaligned16 *)p)->value; }
INLINE u32 load32(const void *p) { return ((const struct unaligned32 *)p)->value; }
INLINE u64 load64(const void *p) { return ((const struct unaligned64 *)p)->value; }
INLINE void store32(void *p, u32 value) { ((struct unaligned32 *)p)->value = value; }
INLINE void store64(void *p, u64 value) { ((struct unaligned64 *)p)->value = value; }

/* Memory that a device writes while the program runs. */
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
