// The words of tail, control, cursor and history, numbered as in kernels/words.py.

enum Tail { LOSS_SUM, SAMPLES, CORRECT, NON_FINITE, STOP, SQUARED_NORM_SUM, STEP_S, TAIL_WORDS = 8 };
enum Control {
    LR,
    SCALE,
    APPLY,
    UPDATE,
    LOSS_SCALE,
    GOOD_STEPS,
    HALTED,
    MOMENTUM,
    CLIP_VALUE,
    LR_FACTOR,
    CONTROL_WORDS = 10
};
enum Rate { RATE_LR, RATE_MOMENTUM, RATE_WORDS = 2 };
enum Cursor { FIRST, STEP, RECORD, EPOCH, CURSOR_WORDS = 4 };
enum History {
    HISTORY_LR = TAIL_WORDS,
    HISTORY_GRAD_NORM,
    HISTORY_APPLIED,
    HISTORY_OVERFLOWED,
    HISTORY_LOSS_SCALE,
    HISTORY_WORDS = TAIL_WORDS + 8
};
