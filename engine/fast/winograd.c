/* 3x3 convolution, stride 1, padding 1, then bias, ReLU and 2x2 max-pooling: one layer a call.
 *
 * Winograd's F(4x4,3x3) (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
 * Networks"): each 4x4 tile of the output needs 36 products a pair of channels in place of 144.
 * Channels are last and padded to a multiple of LANES. One call works through blocks of tiles:
 *
 *   1. every 6x6 patch of the input is transformed, B' d B, into v;
 *   2. for every panel of output channels the 36 matrix products v[point] u[point] go to m;
 *   3. every m of a tile is transformed back, A' m A, and stored with bias, ReLU and pooling.
 *
 * v of a block and the m of one panel stay in the cache. Each thread takes the next block until
 * none is left. Every output number is the same sequence of operations whichever block, batch or
 * thread it falls to, so results do not depend on these, bit for bit.
 *
 * What is not a number, or infinite, in the input spoils all outputs of its tiles, at least those
 * that it spoils in a direct convolution.
 */
#include "kernel.h"
#include "direct.h"

#include <math.h>
#include <stddef.h>

/* ROWS x 2 sums of LANES floats are held in registers. */
#if defined(__AVX512F__)
enum { ROWS = 14 };   /* 28 of 32 registers */
#elif defined(__aarch64__)
enum { ROWS = 12 };   /* 24 of 32 */
#else
enum { ROWS = 6 };    /* 12 of 16 */
#endif
enum { POINTS = 36, PANEL = 2 * LANES };
/* Channels whose products are summed up before they join the sum of the others: in one chain of
 * 512 additions rounding would be twice as large. */
enum { TOGETHER = 32 };

struct layer {
    const void *in;      /* (n, height, width, stride_in): float, or uint8_t where `bytes` */
    float *out;          /* (n, height, width, stride_out), height and width halved by pooling */
    float *whole;        /* the same before pooling, for a backward pass; or null */
    const float *mean;   /* subtracted from the channels of a first layer's input */
    const float *u;      /* weights as transformed by `prepare` */
    const float *bias;   /* (stride_out) */
    int64_t n, height, width, channels;
    int64_t stride_in;   /* channels in memory: a multiple of LANES, or `channels` if first */
    int64_t stride_out;  /* channels in memory: a multiple of LANES */
    int64_t first, bytes, relu, pool;
    int64_t tiles;       /* tiles in a block, at most; backward: in all */
};

static int64_t padded(int64_t channels) { return (channels + LANES - 1) / LANES * LANES; }

/* Floats between two points of v. Odd lines, lest all 36 fall into the same sets of a cache. */
static int64_t point_stride(const struct layer *l)
{
    return l->tiles * padded(l->channels) + 3 * LANES;
}

/* Floats of memory that each calling thread must bring. */
int64_t work_size(const struct layer *l)
{
    return POINTS * (point_stride(l) + l->tiles * PANEL) + (POINTS + 1) * padded(l->channels);
}

/* ---- weights ---------------------------------------------------------------------------- */

/* The weights of `co` outputs and c inputs to u: for each panel of output channels, for each
 * point, (c, panel). Those of an output and an input, 3x3, stand at w + output * by_output +
 * input * by_input, and are turned half round where `turned`. The sums are double, over the
 * channels of a panel side by side. */
void prepare(const float *w, int64_t co, int64_t c, int64_t by_output, int64_t by_input,
             int64_t turned, float *u)
{
    static const double g[6][3] = {
        {1, 0, 0}, {1. / 3, 1. / 3, 1. / 3}, {-1. / 3, 1. / 3, -1. / 3},
        {-16. / 15, -8. / 15, -4. / 15}, {1. / 15, -2. / 15, 4. / 15}, {0, 0, 1}};
    int64_t all = padded(co);
    for (int64_t p = 0; p < all; p += PANEL) {
        int64_t wide = all - p < PANEL ? all - p : PANEL;
        for (int64_t k = 0; k < c; k++) {
            double from[3][3][PANEL] = {{{0}}}, half[6][3][PANEL];
            for (int64_t o = p; o < p + wide && o < co; o++) {
                const float *nine = w + o * by_output + k * by_input;
                for (int i = 0; i < 3; i++)
                    for (int j = 0; j < 3; j++)
                        from[i][j][o - p] = nine[turned ? 8 - 3 * i - j : 3 * i + j];
            }
            for (int i = 0; i < 6; i++)
                for (int j = 0; j < 3; j++)
                    for (int o = 0; o < PANEL; o++)
                        half[i][j][o] = g[i][0] * from[0][j][o] + g[i][1] * from[1][j][o]
                                        + g[i][2] * from[2][j][o];
            for (int i = 0; i < 6; i++)
                for (int j = 0; j < 6; j++) {
                    float *to = u + ((6 * i + j) * c + k) * wide;
                    for (int o = 0; o < wide; o++)
                        to[o] = (float)(g[j][0] * half[i][0][o] + g[j][1] * half[i][1][o]
                                        + g[j][2] * half[i][2][o]);
                }
        }
        u += POINTS * c * wide;
    }
}

/* ---- 1. the input ----------------------------------------------------------------------- */

INLINE void forth(const vec d[6], vec t[6])
{
    vec c = d[4] - d[2], e = d[3] - d[1], a = c + 1.5f * d[3], b = e + 1.5f * d[2];
    t[0] = d[0] - d[2] + c + 1.5f * e;
    t[1] = a + b;
    t[2] = a - b;
    t[3] = c + 2 * e;
    t[4] = c - 0.5f * e;
    t[5] = d[5] - d[3] - e + 1.5f * c;
}

/* One patch, LANES channels of it, from 36 addresses to 36 places `stride` floats apart. Two
 * rows of B' d at a time, because all six would not fit into registers. */
INLINE void transform_in(const float *const from[POINTS], int64_t k, float *v, int64_t stride)
{
#define D(i) LOAD(from[6 * (i) + j] + k)
    for (int pair = 0; pair < 3; pair++) {
        int rows[2] = {pair ? 2 * pair - 1 : 0, pair ? 2 * pair : 5};
        vec half[2][6], t[6];
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++) {
            vec c = D(4) - D(2), e = D(3) - D(1);
            if (pair == 0) {
                half[0][j] = D(0) - D(2) + c + 1.5f * e;
                half[1][j] = D(5) - D(3) - e + 1.5f * c;
            } else if (pair == 1) {
                vec a = c + 1.5f * D(3), b = e + 1.5f * D(2);
                half[0][j] = a + b;
                half[1][j] = a - b;
            } else {
                half[0][j] = c + 2 * e;
                half[1][j] = c - 0.5f * e;
            }
        }
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            forth(half[r], t);
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++)
                STORE(v + (6 * rows[r] + j) * stride, t[j]);
        }
    }
#undef D
}

/* A pixel of a first layer's input: less the mean, widened with zeros. */
static void load_pixel(const struct layer *l, int64_t at, float *to)
{
    for (int64_t k = 0; k < l->channels; k++)
        to[k] = (l->bytes ? (float)((const uint8_t *)l->in)[at + k]
                          : ((const float *)l->in)[at + k]) - l->mean[k];
}

/* Tile number `tile` of the batch to v, where `rows` tiles lie side by side, points `stride` floats
 * apart. `patch` is zero in the channels that padding adds; `zeros` stands for what lies outside
 * the image. */
static void load_tile(const struct layer *l, int64_t tile, float *v, int64_t stride, int64_t rows,
                      const float *zeros, float *patch)
{
    const float *from[POINTS];
    int64_t across = (l->width + 3) / 4, down = (l->height + 3) / 4;
    int64_t left = tile % across * 4 - 1, top = tile / across % down * 4 - 1;
    int64_t image = tile / across / down * l->height * l->width;
    int64_t wide = padded(l->channels);

    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            int64_t y = top + i, x = left + j, at = (image + y * l->width + x) * l->stride_in;
            if (y < 0 || y >= l->height || x < 0 || x >= l->width) {
                from[6 * i + j] = zeros;
            } else if (l->first) {
                load_pixel(l, at, patch + (6 * i + j) * wide);
                from[6 * i + j] = patch + (6 * i + j) * wide;
            } else {
                from[6 * i + j] = (const float *)l->in + at;
            }
        }
    for (int64_t k = 0; k < wide; k += LANES) {
        for (int p = 0; p < POINTS; p++)   /* the next tile's part that is not in this one */
            if (p % 6 >= 2)
                __builtin_prefetch(from[p] + k + 4 * wide);
        transform_in(from, k, v + k * rows, stride);
    }
}

/* ---- 2. the products -------------------------------------------------------------------- */

/* m (rows of POINTS * PANEL) = v (channels / LANES, rows, LANES) times u (channels, vecs * LANES).
 * `rows` and `vecs` are constants wherever this is put in line, so that sums stay in registers. */
INLINE void multiply(const int rows, const int vecs, const float *v, const float *u,
                     int64_t channels, float *m)
{
    for (int64_t from = 0; from < channels; from += TOGETHER) {
        int64_t end = from + TOGETHER < channels ? from + TOGETHER : channels;
        vec sum[ROWS][2];
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int s = 0; s < vecs; s++)
                sum[r][s] = (vec){0};
        for (int64_t done = from; done < end; done += LANES) {
            int64_t count = end - done < LANES ? end - done : LANES;
            for (int64_t k = 0; k < count; k++) {
                vec w[2];
                /* What is to come lies in order, but the CPU does not see that in time. */
                __builtin_prefetch(v + (rows + k) * LANES);
                __builtin_prefetch(u + 16 * PANEL);
                __builtin_prefetch(u + 16 * PANEL + LANES);
#pragma GCC unroll 2
                for (int s = 0; s < vecs; s++)
                    w[s] = LOAD(u + s * LANES);
#pragma GCC unroll 16
                for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
                    for (int s = 0; s < vecs; s++)
                        sum[r][s] += v[r * LANES + k] * w[s];
                u += vecs * LANES;
            }
            v += rows * LANES;
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int s = 0; s < vecs; s++) {
                float *at = m + r * POINTS * PANEL + s * LANES;
                STORE(at, from ? sum[r][s] + LOAD(at) : sum[r][s]);
            }
    }
}

/* Calls function(rows, vecs, ...) with constants for the first two. */
#define CASE(N, function, ...) case N: \
    if (vecs == 2) function(N, 2, __VA_ARGS__); else function(N, 1, __VA_ARGS__); \
    break;
#define CASES_6(...) CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__) CASE(3, __VA_ARGS__) \
    CASE(4, __VA_ARGS__) CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__)
#define CASES_12(...) CASES_6(__VA_ARGS__) CASE(7, __VA_ARGS__) CASE(8, __VA_ARGS__) \
    CASE(9, __VA_ARGS__) CASE(10, __VA_ARGS__) CASE(11, __VA_ARGS__) CASE(12, __VA_ARGS__)
#if defined(__AVX512F__)
#define CASES(...) CASES_12(__VA_ARGS__) CASE(13, __VA_ARGS__) CASE(14, __VA_ARGS__)
#elif defined(__aarch64__)
#define CASES CASES_12
#else
#define CASES CASES_6
#endif

static void multiply_any(int64_t rows, int64_t vecs, const float *v, const float *u,
                         int64_t channels, float *m)
{
    switch (rows) { CASES(multiply, v, u, channels, m) }
}

/* ---- 3. the output ---------------------------------------------------------------------- */

INLINE void back(const vec m[6], vec t[4])
{
    vec a = m[1] + m[2], b = m[1] - m[2];
    t[0] = m[0] + a + m[3] + m[4];
    t[1] = b + 0.5f * m[3] - 2 * m[4];
    t[2] = a + 0.25f * m[3] + 4 * m[4];
    t[3] = b + 0.125f * m[3] - 8 * m[4] + m[5];
}

/* LANES channels of a tile, from m to the 4x4 or, pooled, 2x2 numbers of the output. */
static void store_tile(const struct layer *l, int64_t tile, const float *m, int64_t channel)
{
    int64_t across = (l->width + 3) / 4, down = (l->height + 3) / 4;
    int64_t x = tile % across * 4, y = tile / across % down * 4, image = tile / across / down;
    int64_t wide = l->width - x < 4 ? l->width - x : 4;
    int64_t high = l->height - y < 4 ? l->height - y : 4;
    vec half[4][6], t[4][4], bias = LOAD(l->bias + channel);

    for (int j = 0; j < 6; j++) {
        vec d[6], column[4];
        for (int i = 0; i < 6; i++)
            d[i] = LOAD(m + (6 * i + j) * PANEL);
        back(d, column);
        for (int i = 0; i < 4; i++)
            half[i][j] = column[i];
    }
    for (int i = 0; i < 4; i++) {
        back(half[i], t[i]);
        for (int j = 0; j < 4; j++) {
            t[i][j] += bias;
            if (l->relu)
                t[i][j] = larger(t[i][j], (vec){0});
        }
    }
    float *whole = l->pool ? l->whole : l->out;
    if (whole) {
        whole += ((image * l->height + y) * l->width + x) * l->stride_out + channel;
        for (int i = 0; i < high; i++)
            for (int j = 0; j < wide; j++)
                STORE(whole + (i * l->width + j) * l->stride_out, t[i][j]);
    }
    if (!l->pool)
        return;
    /* The last window of an odd size holds one row or column: what lies outside never wins. */
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (i >= high || j >= wide)
                t[i][j] = (vec){0} - INFINITY;
    int64_t half_width = (l->width + 1) / 2, half_height = (l->height + 1) / 2;
    float *out = l->out
        + ((image * half_height + y / 2) * half_width + x / 2) * l->stride_out + channel;
    for (int i = 0; i < high; i += 2)
        for (int j = 0; j < wide; j += 2)
            STORE(out + (i / 2 * half_width + j / 2) * l->stride_out,
                  larger(larger(t[i][j], t[i][j + 1]), larger(t[i + 1][j], t[i + 1][j + 1])));
}

/* ---- all of it -------------------------------------------------------------------------- */

/* What the threads of a call share. */
struct job {
    void (*part)(struct job *, float *work);
    const struct layer *l;
    float *a, *b, *c;           /* arrays, as each part names them */
    float *work;                /* `each` floats of every thread, of any content */
    int64_t each;
    _Atomic int64_t next;       /* piece of the work that nobody has taken */
};

static int64_t take(struct job *job) { return atomic_fetch_add(&job->next, 1); }

static void work_on(void *p, int64_t rank, int64_t ranks)
{
    struct job *job = p;
    (void)ranks;
    job->part(job, job->work + rank * job->each);
}

static void convolve_part(struct job *job, float *work)
{
    const struct layer *l = job->l;
    int64_t across = (l->width + 3) / 4, down = (l->height + 3) / 4;
    int64_t all = l->n * across * down, wide = padded(l->channels), stride = point_stride(l);
    float *zeros = work, *patch = zeros + wide, *v = patch + POINTS * wide;
    float *m = v + POINTS * stride;

    for (int64_t i = 0; i < (POINTS + 1) * wide; i++)
        work[i] = 0;
    for (;;) {
        int64_t begin = take(job) * l->tiles;
        if (begin >= all)
            return;
        int64_t count = all - begin < l->tiles ? all - begin : l->tiles;
        int64_t groups = (count + ROWS - 1) / ROWS;   /* of nearly equal numbers of tiles */

        for (int64_t g = 0; g < groups; g++) {
            int64_t from = g * count / groups, rows = (g + 1) * count / groups - from;
            for (int64_t r = 0; r < rows; r++)
                load_tile(l, begin + from + r, v + from * wide + r * LANES, stride, rows, zeros,
                          patch);
        }
        const float *u = l->u;
        for (int64_t panel = 0; panel < l->stride_out; panel += PANEL) {
            int64_t vecs = l->stride_out - panel < PANEL ? 1 : 2;
            for (int point = 0; point < POINTS; point++) {
                for (int64_t g = 0; g < groups; g++) {
                    int64_t from = g * count / groups, rows = (g + 1) * count / groups - from;
                    multiply_any(rows, vecs, v + point * stride + from * wide, u,
                                 l->channels, m + (from * POINTS + point) * PANEL);
                }
                u += l->channels * vecs * LANES;
            }
            for (int64_t tile = 0; tile < count; tile++)
                for (int64_t s = 0; s < vecs; s++)
                    store_tile(l, begin + tile, m + tile * POINTS * PANEL + s * LANES,
                               panel + s * LANES);
        }
    }
}

/* ---- backward --------------------------------------------------------------------------- */

/* The gradient of the weights is that of u = G w G', summed over the tiles: at each point the
 * product of the transformed input, B' d B, with the transformed gradient of the output, A g A'. */

enum { FEW = 32 };    /* tiles that a thread transforms at once */
enum { LONG = 128 };  /* tiles whose part in a product of ROWS x PANEL stays in the L1 cache */

/* Floats between two tiles of what is transformed: an odd number of vecs, or a column of tiles would
 * fall into a few sets of that cache. */
int64_t tile_stride(int64_t channels) { return (padded(channels) / LANES | 1) * LANES; }

/* Floats of one point of all tiles. */
int64_t spread_size(const struct layer *l, int64_t channels)
{
    return l->tiles * tile_stride(channels) + 3 * LANES;
}

static void spread_input_part(struct job *job, float *work)
{
    const struct layer *l = job->l;
    float *v = job->a;
    int64_t wide = padded(l->channels), apart = tile_stride(l->channels);
    int64_t stride = spread_size(l, l->channels);
    for (int64_t i = 0; i < (POINTS + 1) * wide; i++)
        work[i] = 0;
    for (int64_t tile; (tile = take(job) * FEW) < l->tiles;)
        for (int64_t end = tile + FEW < l->tiles ? tile + FEW : l->tiles; tile < end; tile++)
            load_tile(l, tile, v + tile * apart, stride, 1, work, work + wide);
}

INLINE void spread(const vec t[4], vec m[6])
{
    vec a = t[0] + t[2], b = t[1] + t[3];
    m[0] = t[0];
    m[1] = a + b;
    m[2] = a - b;
    m[3] = t[0] + 0.25f * t[2] + 0.5f * (t[1] + 0.25f * t[3]);
    m[4] = t[0] + 4 * t[2] - 2 * (t[1] + 4 * t[3]);
    m[5] = t[3];
}

static void spread_gradient_part(struct job *job, float *work)
{
    const struct layer *l = job->l;
    float *v = job->a;
    (void)work;
    int64_t across = (l->width + 3) / 4, down = (l->height + 3) / 4;
    int64_t wide = l->channels, apart = tile_stride(wide), stride = spread_size(l, wide);
    for (int64_t tile; (tile = take(job) * FEW) < l->tiles;)
        for (int64_t end = tile + FEW < l->tiles ? tile + FEW : l->tiles; tile < end; tile++) {
            int64_t x = tile % across * 4, y = tile / across % down * 4;
            int64_t image = tile / across / down;
            const float *in = (const float *)l->in
                + ((image * l->height + y) * l->width + x) * wide;
            for (int64_t k = 0; k < wide; k += LANES) {
                vec half[6][4], m[6];
                for (int j = 0; j < 4; j++) {
                    vec column[4];
                    for (int i = 0; i < 4; i++) {
                        column[i] = (vec){0};
                        if (y + i < l->height && x + j < l->width)
                            column[i] = LOAD(in + (i * l->width + j) * wide + k);
                    }
                    spread(column, m);
                    for (int i = 0; i < 6; i++)
                        half[i][j] = m[i];
                }
                for (int i = 0; i < 6; i++) {
                    spread(half[i], m);
                    for (int j = 0; j < 6; j++)
                        STORE(v + (6 * i + j) * stride + tile * apart + k, m[j]);
                }
            }
        }
}

/* u (rows, outs) += v (tiles, wide) transposed times t (tiles, stride), `vecs` vecs of it. */
INLINE void accumulate(const int rows, const int vecs, const float *v, const float *t,
                       int64_t tiles, int64_t wide, int64_t stride, int64_t outs, float *u)
{
    vec sum[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int s = 0; s < vecs; s++)
            sum[r][s] = (vec){0};
    for (int64_t k = 0; k < tiles; k++, v += wide, t += stride) {
        vec w[2];
        __builtin_prefetch(t + 8 * stride);
        __builtin_prefetch(t + 8 * stride + LANES);
        __builtin_prefetch(v + 8 * wide);
#pragma GCC unroll 2
        for (int s = 0; s < vecs; s++)
            w[s] = LOAD(t + s * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int s = 0; s < vecs; s++)
                sum[r][s] += v[r] * w[s];
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int s = 0; s < vecs; s++)
            STORE(u + r * outs + s * LANES, sum[r][s] + LOAD(u + r * outs + s * LANES));
}

static void accumulate_any(int64_t rows, int64_t vecs, const float *v, const float *t,
                           int64_t tiles, int64_t wide, int64_t stride, int64_t outs, float *u)
{
    switch (rows) { CASES(accumulate, v, t, tiles, wide, stride, outs, u) }
}

static void add_products_part(struct job *job, float *work)
{
    const struct layer *l = job->l;
    const float *v = job->a, *t = job->b;
    float *u = job->c;
    (void)work;
    int64_t outs = l->stride_out, wide = tile_stride(l->channels), stride = tile_stride(outs);
    int64_t groups = (l->channels + ROWS - 1) / ROWS;   /* of nearly equal numbers of channels */
    for (int64_t unit; (unit = take(job)) < POINTS * groups;) {
        int64_t point = unit / groups, g = unit % groups;
        int64_t from = g * l->channels / groups, rows = (g + 1) * l->channels / groups - from;
        const float *left = v + point * spread_size(l, l->channels) + from;
        const float *right = t + point * spread_size(l, outs);
        for (int64_t k = 0; k < l->tiles; k += LONG) {
            int64_t tiles = l->tiles - k < LONG ? l->tiles - k : LONG;
            for (int64_t panel = 0; panel < outs; panel += PANEL)
                accumulate_any(rows, outs - panel < PANEL ? 1 : 2, left + k * wide,
                               right + k * stride + panel, tiles, wide, stride, outs,
                               u + (point * l->channels + from) * outs + panel);
        }
    }
}

static void through_output_part(struct job *job, float *work)
{
    const struct layer *l = job->l;
    const float *g = job->a;
    float *gz = job->b;
    (void)work;
    int64_t side = l->pool ? 2 : 1, wide = l->stride_out;
    int64_t down = (l->height + side - 1) / side, across = (l->width + side - 1) / side;
    const float *whole = l->pool ? l->whole : l->out;
    for (int64_t row; (row = take(job)) < l->n * down;) {
        int64_t y = row % down * side, at = (row / down * l->height + y) * l->width * wide;
        for (int64_t x = 0; x < across; x++)
            for (int64_t k = 0; k < wide; k += LANES) {
                int64_t one = (row * across + x) * wide + k;
                vec largest = LOAD(l->out + one), zero = {0}, up = LOAD(g + one);
                /* By a product, so that what is no finite number does not become zero. */
                up *= choose(largest > zero, zero + 1, choose(largest <= zero, zero, largest));
                bits left = (bits)zero - 1;
                for (int64_t i = 0; i < side && y + i < l->height; i++)
                    for (int64_t j = 0; j < side && side * x + j < l->width; j++) {
                        int64_t to = at + (i * l->width + side * x + j) * wide + k;
                        vec value = LOAD(whole + to);
                        bits here = (value == largest) | (value != value);
                        STORE(gz + to, choose(left & here, up, zero));
                        left &= ~here;
                    }
            }
    }
}

/* ---- what is called, with its number of threads ----------------------------------------- */

/* The layer, block by block. `work` holds work_size(l) floats for each thread. */
void convolve(const struct layer *l, float *work, int64_t threads)
{
    struct job job = {convolve_part, l, .work = work, .each = work_size(l)};
    in_threads(work_on, &job, threads);
}

/* All tiles of the input to v, spread_size(l, channels) floats a point, with l->tiles the number
 * of all. `work` holds (POINTS + 1) * padded(channels) floats for each thread. */
void spread_input(const struct layer *l, float *v, float *work, int64_t threads)
{
    struct job job = {spread_input_part, l, .a = v, .work = work,
                      .each = (POINTS + 1) * padded(l->channels)};
    in_threads(work_on, &job, threads);
}

/* The same of the gradient of the output before ReLU, l->in (n, height, width, channels),
 * channels a multiple of LANES. Its point 7, a + b both ways, is the sum over a tile. */
void spread_gradient(const struct layer *l, float *v, int64_t threads)
{
    struct job job = {spread_gradient_part, l, .a = v};
    in_threads(work_on, &job, threads);
}

/* Adds the products of v, of spread_input(l), and t, of spread_gradient for as many tiles and
 * l->stride_out channels, to u (POINTS, l->channels, stride_out). */
void add_products(const struct layer *l, float *v, float *t, float *u, int64_t threads)
{
    struct job job = {add_products_part, l, .a = v, .b = t, .c = u};
    in_threads(work_on, &job, threads);
}

/* From the gradient `g` of the layer's output to that before pooling and ReLU, `gz` (n, height,
 * width, stride_out). It goes to the first of the largest in a window, if that is above zero. */
void through_output(const struct layer *l, float *g, float *gz, int64_t threads)
{
    struct job job = {through_output_part, l, .a = g, .b = gz};
    in_threads(work_on, &job, threads);
}
