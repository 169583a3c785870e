package example;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.Objects;

/** What was wanted of an answer. */
final class Expect {
    private Expect() {}

    static void want(boolean condition, Object got) {
        if (!condition) {
            throw new AssertionError("got " + got);
        }
    }

    static void wantEqual(Object wanted, Object got) {
        want(Objects.equals(wanted, got), got + ", " + wanted + " wanted");
    }

    /** Holds a call that has to fail against its status code and a part of its text. */
    static void wantError(Runnable call, Status.Code code, String text) {
        try {
            call.run();
        } catch (StatusRuntimeException error) {
            String description = Objects.requireNonNullElse(error.getStatus().getDescription(), "");
            want(error.getStatus().getCode() == code && description.contains(text), error.getMessage());
            return;
        }
        want(false, "an answer");
    }
}
