/* A part of winograd.c: the layers of a network that its algorithm gains nothing for, a 3x3
 * convolution of few channels, which is the first one of pictures, and fully connected layers on
 * few frames.
 *
 * Every output number is the same sequence of operations whichever other frames or rows come along
 * and whichever thread it falls to. What is not a number, or infinite, goes where it goes in
 * Chainer's layers.
 */
struct direct {
    const void *x;
    const float *w, *bias, *mean;
    float *out, *work;          /* `each` floats of every thread, of any content */
    int64_t each;
    int64_t n, height, width, channels, outs, bytes, relu;
    _Atomic int64_t next;       /* piece of the work that nobody has taken */
};

static int64_t take_piece(struct direct *job) { return atomic_fetch_add(&job->next, 1); }

/* ---- a convolution of few channels ------------------------------------------------------- */

/* PIXELS x VECS sums stay in registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { PIXELS = 6, VECS = 4 };  /* 24 of 32 */
#else
enum { PIXELS = 6, VECS = 2 };  /* 12 of 16 */
#endif
enum { STRIP = 8 };             /* rows of the output that a thread takes */

/* Floats of a row of the input with what surrounds it, to the end of the last pixels at once. */
static int64_t row_size(const struct direct *j) { return (j->width + 2 + PIXELS) * j->channels; }

int64_t first_size(int64_t width, int64_t channels)
{
    struct direct job = {.width = width, .channels = channels};
    return (STRIP + 2) * row_size(&job);
}

/* Row y of the input to `to`, less the mean; zeros where there is none. */
static void load_row(const struct direct *j, int64_t image, int64_t y, float *to)
{
    const int64_t c = j->channels, row = j->width * c;
    for (int64_t i = 0; i < row_size(j); i++)
        to[i] = 0;
    if (y < 0 || y >= j->height)
        return;
    const int64_t at = (image * j->height + y) * row;
    for (int64_t x = 0; x < row; x += c)
        for (int64_t k = 0; k < c; k++)
            to[c + x + k] = (j->bytes ? (float)((const uint8_t *)j->x)[at + x + k]
                                      : ((const float *)j->x)[at + x + k]) - j->mean[k];
}

/* PIXELS pixels from x on, `vecs` vecs of channels from `panel` on. */
INLINE void pixels(const struct direct *j, const float *rows, int64_t x, int64_t panel, float *out,
                   const int vecs)
{
    const int64_t c = j->channels, size = row_size(j);
    vec sums[PIXELS][VECS];
    for (int p = 0; p < PIXELS; p++)
        for (int v = 0; v < vecs; v++)
            sums[p][v] = LOAD(j->bias + panel + v * LANES);
    const float *w = j->w + panel;
    for (int r = 0; r < 3; r++)
        for (int64_t i = 0; i < 3 * c; i++, w += j->outs) {
            const float *value = rows + r * size + x * c + i;
            vec weight[VECS];
            for (int v = 0; v < vecs; v++)
                weight[v] = LOAD(w + v * LANES);
#pragma GCC unroll 6
            for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 4
                for (int v = 0; v < vecs; v++)
                    sums[p][v] += value[p * c] * weight[v];
        }
#pragma GCC unroll 6
    for (int p = 0; p < PIXELS; p++)
        if (x + p < j->width)
            for (int v = 0; v < vecs; v++)
                STORE(out + (x + p) * j->outs + panel + v * LANES,
                      j->relu ? larger(sums[p][v], (vec){0}) : sums[p][v]);
}

static void first_part(void *p, int64_t rank, int64_t ranks)
{
    struct direct *j = p;
    (void)ranks;
    float *rows = j->work + rank * j->each;
    const int64_t strips = (j->height + STRIP - 1) / STRIP, size = row_size(j);
    for (int64_t piece; (piece = take_piece(j)) < j->n * strips;) {
        const int64_t image = piece / strips, top = piece % strips * STRIP;
        const int64_t end = top + STRIP < j->height ? top + STRIP : j->height;
        for (int64_t y = top - 1; y < end + 1; y++)
            load_row(j, image, y, rows + (y - top + 1) * size);
        for (int64_t y = top; y < end; y++) {
            float *out = j->out + (image * j->height + y) * j->width * j->outs;
            const float *three = rows + (y - top) * size;
            int64_t panel = 0;
            for (; panel + VECS * LANES <= j->outs; panel += VECS * LANES)
                for (int64_t x = 0; x < j->width; x += PIXELS)
                    pixels(j, three, x, panel, out, VECS);
            for (; panel < j->outs; panel += LANES)
                for (int64_t x = 0; x < j->width; x += PIXELS)
                    pixels(j, three, x, panel, out, 1);
        }
    }
}

/* x (n, height, width, channels), bytes or floats, less the mean (channels), to out (n, height,
 * width, outs), outs a multiple of LANES. w is (3, 3, channels, outs); `work` holds
 * first_size(width, channels) floats of each thread. */
void first(const void *x, const float *mean, const float *w, const float *bias, float *out,
           int64_t n, int64_t height, int64_t width, int64_t channels, int64_t outs,
           int64_t bytes, int64_t relu, float *work, int64_t threads)
{
    struct direct job = {x, w, bias, mean, out, work, first_size(width, channels), n, height, width,
                      channels, outs, bytes, relu, 0};
    in_threads(first_part, &job, threads);
}

/* ---- a fully connected layer --------------------------------------------------------------- */

/* The weights are far more than a cache holds and wanted once, so they pass by once: SOME
 * outputs at a time meet all frames, DEEP inputs at a time. OUTPUTS x FRAMES sums, whose lanes are
 * added up in the end, stay in registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { OUTPUTS = 4, FRAMES = 6 };
#else
enum { OUTPUTS = 4, FRAMES = 3 };
#endif
enum { SOME = 24, DEEP = 1024, AHEAD = 256 };

int64_t dense_size(int64_t n) { return SOME * n * LANES; }

/* sums (frames, SOME) of vecs += x (frames, channels) times w (outputs, channels), `count` of the
 * channels. */
INLINE void add(const int outputs, const int frames, const float *x, const float *w,
                int64_t channels, int64_t count, float *sums)
{
    vec s[OUTPUTS][FRAMES];
    for (int o = 0; o < outputs; o++)
        for (int f = 0; f < frames; f++)
            s[o][f] = (vec){0};
    for (int64_t i = 0; i < count; i += LANES) {
        vec values[FRAMES];
#pragma GCC unroll 6
        for (int f = 0; f < frames; f++)
            values[f] = LOAD(x + f * channels + i);
#pragma GCC unroll 4
        for (int o = 0; o < outputs; o++) {
            const vec weight = LOAD(w + o * channels + i);
            __builtin_prefetch(w + o * channels + i + AHEAD);
#pragma GCC unroll 6
            for (int f = 0; f < frames; f++)
                s[o][f] += weight * values[f];
        }
    }
    for (int o = 0; o < outputs; o++)
        for (int f = 0; f < frames; f++)
            STORE(sums + (f * SOME + o) * LANES, s[o][f] + LOAD(sums + (f * SOME + o) * LANES));
}

#define OF_FRAMES(N) \
    case N: if (outputs == OUTPUTS) add(OUTPUTS, N, x, w, channels, count, sums); \
        else for (int o = 0; o < outputs; o++) \
            add(1, N, x, w + o * channels, channels, count, sums + o * LANES); \
        break;

static void add_any(int64_t outputs, int64_t frames, const float *x, const float *w,
                    int64_t channels, int64_t count, float *sums)
{
    switch (frames) {
        OF_FRAMES(1) OF_FRAMES(2) OF_FRAMES(3)
#if defined(__AVX512F__) || defined(__aarch64__)
        OF_FRAMES(4) OF_FRAMES(5) OF_FRAMES(6)
#endif
    }
}

static float total(const float *lanes)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

static void dense_part(void *p, int64_t rank, int64_t ranks)
{
    struct direct *j = p;
    (void)ranks;
    float *sums = j->work + rank * j->each;
    const int64_t c = j->channels, whole = c / LANES * LANES;
    const int64_t groups = (j->n + FRAMES - 1) / FRAMES;   /* of nearly equal numbers of frames */
    const float *x = j->x;
    for (int64_t begin; (begin = take_piece(j) * SOME) < j->outs;) {
        const int64_t end = begin + SOME < j->outs ? begin + SOME : j->outs;
        for (int64_t i = 0; i < j->each; i++)
            sums[i] = 0;
        for (int64_t k = 0; k < whole; k += DEEP) {
            const int64_t count = whole - k < DEEP ? whole - k : DEEP;
            for (int64_t o = begin; o < end; o += OUTPUTS)
                for (int64_t g = 0; g < groups; g++) {
                    const int64_t f = g * j->n / groups, frames = (g + 1) * j->n / groups - f;
                    add_any(end - o < OUTPUTS ? end - o : OUTPUTS, frames, x + f * c + k,
                            j->w + o * c + k, c, count, sums + (f * SOME + o - begin) * LANES);
                }
        }
        for (int64_t f = 0; f < j->n; f++)
            for (int64_t o = begin; o < end; o++) {
                float sum = total(sums + (f * SOME + o - begin) * LANES);
                for (int64_t k = whole; k < c; k++)
                    sum += x[f * c + k] * j->w[o * c + k];
                j->out[f * j->outs + o] = sum + j->bias[o];
            }
    }
}

/* x (n, channels) times w (outs, channels) turned, plus bias, to out (n, outs). `work` holds
 * dense_size(n) floats of each thread. */
void dense(const float *x, const float *w, const float *bias, float *out, int64_t n,
           int64_t channels, int64_t outs, float *work, int64_t threads)
{
    struct direct job = {.x = x, .w = w, .bias = bias, .out = out, .work = work,
                      .each = dense_size(n), .n = n, .channels = channels, .outs = outs};
    in_threads(dense_part, &job, threads);
}
