/* Rows of quantized matrices, dequantised: what forq.layers.kernels.fill and forq.formats.codecs.gguf_blocks compute.

   Every product, sum and difference is rounded to float32 in the order of those files, so the weights are the same bit
   for bit. Compile without contraction into fused multiply-adds (-ffp-contract=off). Vector extensions of GCC and Clang.

   GGUF's types: codes and factors are the blocks of consecutive rows, as the file packs them; d and m (or dmin) are one
   float32 a block. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef uint8_t u8x8 __attribute__((vector_size(8)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef float f32x8 __attribute__((vector_size(32)));

/* Macros and not functions: a vector as an argument would depend on the processor's calling convention. */
#define FLOATS(x) __builtin_convertvector(x, f32x8)
#define PUT(at, x) do { f32x8 put_ = (x); memcpy(at, &put_, sizeof put_); } while (0)
#ifdef __AVX2__ /* GCC makes several instructions of the conversion */
#define BYTES(name, at) i32x8 name = (i32x8)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(at)))
#else
#define BYTES(name, at) i32x8 name; do { u8x8 b_; memcpy(&b_, at, 8); name = __builtin_convertvector(b_, i32x8); } while (0)
#endif

#define BLOCKS(name) \
    void name(const uint8_t *restrict codes, const uint8_t *restrict factors, const float *restrict d, \
              const float *restrict m, float *restrict out, ptrdiff_t blocks)
#define EACH for (ptrdiff_t b = 0; b < blocks; b++)

BLOCKS(Q4_1) {
    EACH {
        const uint8_t *q = codes + 16 * b;
        float *o = out + 32 * b;
        for (int j = 0; j < 16; j += 8) {
            BYTES(x, q + j);
            PUT(o + j, FLOATS(x & 15) * d[b] + m[b]);
            PUT(o + 16 + j, FLOATS(x >> 4) * d[b] + m[b]);
        }
    }
}

static const i32x8 PLACES = {0, 1, 2, 3, 4, 5, 6, 7};

/* Four bytes of fifth bits, then sixteen of the lower four. */
#define FIVE(weight) \
    EACH { \
        const uint8_t *q = codes + 20 * b; \
        float *o = out + 32 * b; \
        for (int j = 0; j < 16; j += 8) { \
            BYTES(x, q + 4 + j); \
            i32x8 low = (x & 15) | ((((int32_t)q[j / 8] + (i32x8){0}) >> PLACES) & 1) << 4; \
            i32x8 high = x >> 4 | ((((int32_t)q[2 + j / 8] + (i32x8){0}) >> PLACES) & 1) << 4; \
            PUT(o + j, weight(low)); \
            PUT(o + 16 + j, weight(high)); \
        } \
    }
#define CENTRED(q) FLOATS((q) - 16) * d[b]
#define ABOVE(q) FLOATS(q) * d[b] + m[b]

BLOCKS(Q5_0) { FIVE(CENTRED) }
BLOCKS(Q5_1) { FIVE(ABOVE) }

BLOCKS(Q2_K) {
    EACH {
        const uint8_t *q = codes + 64 * b, *f = factors + 16 * b;
        float *o = out + 256 * b;
        for (int part = 0; part < 16; part++) { /* sixteen values */
            float scale = d[b] * (float)(f[part] & 15), less = m[b] * (float)(f[part] >> 4);
            int first = part / 8 * 32 + part % 2 * 16, shift = part % 8 / 2 * 2;
            for (int j = 0; j < 16; j += 8) {
                BYTES(x, q + first + j);
                PUT(o + 16 * part + j, FLOATS(x >> shift & 3) * scale - less);
            }
        }
    }
}

BLOCKS(Q3_K) {
    EACH {
        const uint8_t *q = codes + 96 * b, *f = factors + 12 * b;
        float *o = out + 256 * b;
        for (int part = 0; part < 16; part++) {
            int low = part < 8 ? f[part] & 15 : f[part - 8] >> 4;
            int factor = (low | (f[8 + part % 4] >> part / 4 * 2 & 3) << 4) - 32;
            float scale = d[b] * (float)factor;
            int side = part % 2 * 16, first = 32 + part / 8 * 32 + side, shift = part % 8 / 2 * 2;
            for (int j = 0; j < 16; j += 8) {
                BYTES(x, q + first + j);
                BYTES(y, q + side + j);
                PUT(o + 16 * part + j, FLOATS(((x >> shift & 3) | (y >> part / 2 & 1) << 2) - 4) * scale);
            }
        }
    }
}

/* Six bits of the scale and of the minimum of 32 values, out of twelve bytes for eight of them. */
static inline void six_bits(const uint8_t *f, int part, int *factor, int *less) {
    if (part < 4) {
        *factor = f[part] & 63;
        *less = f[4 + part] & 63;
    } else {
        *factor = (f[4 + part] & 15) | (f[part - 4] >> 2 & 48);
        *less = f[4 + part] >> 4 | (f[part] >> 2 & 48);
    }
}

#define SIX_BITS(part) \
    int s0, n0, s1, n1; \
    six_bits(f, part, &s0, &n0); \
    six_bits(f, (part) + 1, &s1, &n1); \
    float scale0 = d[b] * (float)s0, less0 = m[b] * (float)n0, scale1 = d[b] * (float)s1, less1 = m[b] * (float)n1

BLOCKS(Q4_K) {
    EACH {
        const uint8_t *q = codes + 128 * b, *f = factors + 12 * b;
        float *o = out + 256 * b;
        for (int part = 0; part < 8; part += 2) {
            SIX_BITS(part);
            for (int j = 0; j < 32; j += 8) {
                BYTES(x, q + 16 * part + j);
                PUT(o + 32 * part + j, FLOATS(x & 15) * scale0 - less0);
                PUT(o + 32 * part + 32 + j, FLOATS(x >> 4) * scale1 - less1);
            }
        }
    }
}

BLOCKS(Q5_K) {
    EACH {
        const uint8_t *h = codes + 160 * b, *q = h + 32, *f = factors + 12 * b;
        float *o = out + 256 * b;
        for (int part = 0; part < 8; part += 2) {
            SIX_BITS(part);
            for (int j = 0; j < 32; j += 8) {
                BYTES(x, q + 16 * part + j);
                BYTES(y, h + j);
                PUT(o + 32 * part + j, FLOATS((x & 15) | (y >> part & 1) << 4) * scale0 - less0);
                PUT(o + 32 * part + 32 + j, FLOATS(x >> 4 | (y >> (part + 1) & 1) << 4) * scale1 - less1);
            }
        }
    }
}

BLOCKS(Q6_K) {
    EACH {
        const int8_t *f = (const int8_t *)factors + 16 * b;
        float *o = out + 256 * b;
        for (int half = 0; half < 2; half++, o += 128, f += 8) {
            const uint8_t *q = codes + 192 * b + 64 * half, *h = codes + 192 * b + 128 + 32 * half;
            for (int j = 0; j < 32; j += 8) {
                BYTES(x, q + j);
                BYTES(y, q + 32 + j);
                BYTES(z, h + j);
                const int8_t *s = f + j / 16;
                PUT(o + j, FLOATS(((x & 15) | (z & 3) << 4) - 32) * (d[b] * (float)s[0]));
                PUT(o + 32 + j, FLOATS(((y & 15) | (z >> 2 & 3) << 4) - 32) * (d[b] * (float)s[2]));
                PUT(o + 64 + j, FLOATS((x >> 4 | (z >> 4 & 3) << 4) - 32) * (d[b] * (float)s[4]));
                PUT(o + 96 + j, FLOATS((y >> 4 | (z >> 6) << 4) - 32) * (d[b] * (float)s[6]));
            }
        }
    }
}

/* Codes of 4 or 8 bits with a scale and a zero point a group: w = (code − zero) · scale.

   At 4 bits a row comes as its even inputs, then its odd ones: see forq.layers.codes. scales are (rows, groups); zeros
   too, or a single number where zero_step is 0. The last group may be shorter. */
#define GROUPS \
    const uint8_t *restrict codes, const float *restrict scales, const float *restrict zeros, ptrdiff_t zero_step, \
        float *restrict out, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t group

void codes_8(GROUPS) {
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t first = 0; first < columns; first += group, scales++, zeros += zero_step) {
            ptrdiff_t count = columns - first < group ? columns - first : group, j = 0;
            float scale = *scales, zero = *zeros;
            for (; j + 8 <= count; j += 8, codes += 8, out += 8) {
                BYTES(x, codes);
                PUT(out, (FLOATS(x) - zero) * scale);
            }
            for (; j < count; j++) *out++ = ((float)*codes++ - zero) * scale;
        }
}

void codes_4(GROUPS) {
    ptrdiff_t half = columns / 2;
    for (ptrdiff_t row = 0; row < rows; row++, out += half)
        for (ptrdiff_t first = 0; first < half; first += group / 2, scales++, zeros += zero_step) {
            ptrdiff_t count = half - first < group / 2 ? half - first : group / 2, j = 0;
            float scale = *scales, zero = *zeros;
            for (; j + 8 <= count; j += 8, codes += 8, out += 8) {
                BYTES(x, codes);
                PUT(out, (FLOATS(x & 15) - zero) * scale);
                PUT(out + half, (FLOATS(x >> 4) - zero) * scale);
            }
            for (; j < count; j++, codes++, out++) {
                out[0] = ((float)(*codes & 15) - zero) * scale;
                out[half] = ((float)(*codes >> 4) - zero) * scale;
            }
        }
}
