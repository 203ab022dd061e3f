#include "random.h"
#include "memory.h"

HOT static u64 random_state[4] = {
    0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0x2545f4914f6cdd1d,
};

static u64 rotate(u64 value, u32 by) { return value << by | value >> (64 - by); }

/* xoshiro256** (Blackman and Vigna): few instructions, a period of 2^256 - 1. */
static u64 random_next(void)
{
    u64 result = rotate(random_state[1] * 5, 7) * 9;
    u64 shifted = random_state[1] << 17;

    random_state[2] ^= random_state[0];
    random_state[3] ^= random_state[1];
    random_state[1] ^= random_state[2];
    random_state[0] ^= random_state[3];
    random_state[2] ^= shifted;
    random_state[3] = rotate(random_state[3], 45);
    return result;
}

static void random_mix(const u8 *entropy)
{
    /* Entropy is as good as any state: nothing of it need be stirred before the first draw. That it
     * cancels the state out, which would leave zeroes for ever, is as likely as any other value. */
#pragma GCC unroll 4
    for (u32 i = 0; i < 4; i++) {
        random_state[i] ^= load64(entropy + 8 * i);
    }
}
