/* Products in bfloat16 by AMX: y[t, o] = sum_k bf16(x[t, k]) · bf16(w[o, k]), summed in float32.

   Weights come as float32 rows, just dequantised. Sixteen of them at a time are rounded and turned into a panel: a row of
   it holds the inputs 2k and 2k + 1 of sixteen outputs, as the instruction wants them. Two panels meet two tiles of
   sixteen tokens. Linux on x86-64 alone. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Memory is as written: compilers are not told what the instructions of tiles read. */
#define SEEN __asm__ volatile("" ::: "memory")

enum { TILE = 16, PANELS = 2, TOKENS = 2 * TILE, INPUTS = 32 };

/* Whether Linux lets this process use the registers: it has to be asked once. */
int ready(void) {
    enum { REQUEST = 0x1023, TILES = 18 };
    return syscall(SYS_arch_prctl, REQUEST, TILES) == 0;
}

/* Turn 16 × 16 numbers of 32 bits. */
static void turn(__m512i r[TILE]) {
    __m512i t[TILE];
    for (int i = 0; i < TILE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < TILE; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
    for (int i = 0; i < TILE; i += 8)
        for (int j = 0; j < 4; j++) {
            t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + 4 + j], 0x88);
            t[i + 4 + j] = _mm512_shuffle_i32x4(r[i + j], r[i + 4 + j], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* Sixteen rows of weights, or fewer and then zeros, rounded and turned: panel[k / 2][o] holds inputs k and k + 1. */
static void pack(const float *w, ptrdiff_t rows, ptrdiff_t columns, uint32_t *panel) {
    for (ptrdiff_t k = 0; k < columns; k += INPUTS, panel += TILE * TILE) {
        __m512i r[TILE];
        for (int o = 0; o < TILE; o++) {
            const float *at = w + o * columns + k;
            r[o] = o < rows ? (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + TILE), _mm512_loadu_ps(at))
                            : _mm512_setzero_si512();
        }
        turn(r);
        for (int i = 0; i < TILE; i++) _mm512_storeu_si512(panel + TILE * i, r[i]);
    }
}

static void configure(void) {
    struct { uint8_t palette, row, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } c = {.palette = 1};
    for (int i = 0; i < 8; i++) c.bytes[i] = 64, c.rows[i] = TILE;
    SEEN;
    _tile_loadconfig(&c);
}

/* Tokens of one or two tiles by one or two panels, into out (tokens, 32) or y itself. */
#define PRODUCT(two_tiles, two_panels) \
    _tile_zero(0); \
    if (two_panels) _tile_zero(1); \
    if (two_tiles) _tile_zero(2); \
    if (two_tiles && two_panels) _tile_zero(3); \
    for (ptrdiff_t k = 0; k < columns; k += INPUTS) { \
        _tile_loadd(4, x + k, 2 * columns); \
        if (two_tiles) _tile_loadd(5, x + TILE * columns + k, 2 * columns); \
        _tile_loadd(6, panels + TILE * k / 2, 64); \
        if (two_panels) _tile_loadd(7, panels + TILE * (columns + k) / 2, 64); \
        _tile_dpbf16ps(0, 4, 6); \
        if (two_panels) _tile_dpbf16ps(1, 4, 7); \
        if (two_tiles) _tile_dpbf16ps(2, 5, 6); \
        if (two_tiles && two_panels) _tile_dpbf16ps(3, 5, 7); \
    } \
    _tile_stored(0, y, 4 * stride); \
    if (two_panels) _tile_stored(1, y + TILE, 4 * stride); \
    if (two_tiles) _tile_stored(2, y + TILE * stride, 4 * stride); \
    if (two_tiles && two_panels) _tile_stored(3, y + TILE * stride + TILE, 4 * stride);

static void meet(const uint16_t *x, ptrdiff_t tokens, const uint32_t *panels, int two, ptrdiff_t columns, float *y,
                 ptrdiff_t stride) {
    if (tokens == TOKENS && two) { PRODUCT(1, 1) }
    else if (tokens == TOKENS) { PRODUCT(1, 0) }
    else if (two) { PRODUCT(0, 1) }
    else { PRODUCT(0, 0) }
}

/* x: bfloat16 (tokens, columns), tokens a multiple of 16 and columns of 32; w: float32 (rows, columns);
   panels: room for 32 · columns numbers of bfloat16; y: float32, rows of it `stride` apart. */
void product(const uint16_t *restrict x, const float *restrict w, uint32_t *restrict panels, float *restrict y,
             ptrdiff_t tokens, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t stride) {
    float part[TOKENS * PANELS * TILE];
    configure();
    for (ptrdiff_t o = 0; o < rows; o += PANELS * TILE) {
        ptrdiff_t left = rows - o < PANELS * TILE ? rows - o : PANELS * TILE;
        int two = left > TILE, whole = left % TILE == 0;
        pack(w + o * columns, left < TILE ? left : TILE, columns, panels);
        if (two) pack(w + (o + TILE) * columns, left - TILE, columns, panels + TILE * columns / 2);
        SEEN;
        for (ptrdiff_t t = 0; t < tokens; t += TOKENS) {
            ptrdiff_t count = tokens - t < TOKENS ? tokens - t : TOKENS;
            float *to = y + t * stride + o;
            meet(x + t * columns, count, panels, two, columns, whole ? to : part, whole ? stride : PANELS * TILE);
            SEEN;
            if (!whole)
                for (ptrdiff_t i = 0; i < count; i++)
                    memcpy(to + i * stride, part + PANELS * TILE * i, sizeof(float) * left);
        }
    }
    _tile_release();
}
