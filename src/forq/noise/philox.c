/* Philox-4x64 with ten rounds (Salmon et al., SC 2011): the words of numpy.random.Philox, without its detours. */

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t lane[4];
} Block;

static Block block_at(const uint64_t key[2], const uint64_t direction[2], uint64_t number)
{
    uint64_t a = key[0], b = key[1], x0 = number, x1 = direction[0], x2 = direction[1], x3 = 0;
    for (int round = 0; round < 10; round++) {
        unsigned __int128 p0 = (unsigned __int128)0xD2E7470EE14C6C93u * x0;
        unsigned __int128 p2 = (unsigned __int128)0xCA5A826395121157u * x2;
        x0 = (uint64_t)(p2 >> 64) ^ x1 ^ a;
        x2 = (uint64_t)(p0 >> 64) ^ x3 ^ b;
        x1 = (uint64_t)p2;
        x3 = (uint64_t)p0;
        a += 0x9E3779B97F4A7C15u;
        b += 0xBB67AE8584CAA73Bu;
    }
    return (Block){{x0, x1, x2, x3}};
}

/* All words of `count` blocks, from block `first` on. */
void words(const uint64_t key[2], const uint64_t direction[2], uint64_t first, uint64_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Block block = block_at(key, direction, first + i);
        for (int lane = 0; lane < 4; lane++)
            out[4 * i + lane] = block.lane[lane];
    }
}

/* The words at `count` places. */
void words_at(const uint64_t key[2], const uint64_t direction[2], const uint64_t *places, uint64_t *out, size_t count)
{
    Block block = {{0}};
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || places[i] / 4 != places[i - 1] / 4)
            block = block_at(key, direction, places[i] / 4);
        out[i] = block.lane[places[i] % 4];
    }
}
