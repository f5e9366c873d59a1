import com.google.protobuf.Duration;
import headstart.v1.CustomSpec;
import headstart.v1.GetResultsRequest;
import headstart.v1.GetResultsResponse;
import headstart.v1.PrecomputeServiceGrpc;
import headstart.v1.StartOutcome;
import headstart.v1.StartPrecomputeRequest;
import headstart.v1.WatchResultsRequest;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** What a Java backend would write; compiled against what is generated, to show that it fits. */
final class Calls {
  static GetResultsResponse ahead(ManagedChannel channel, String key, long value) {
    PrecomputeServiceGrpc.PrecomputeServiceBlockingStub stub =
        PrecomputeServiceGrpc.newBlockingStub(channel).withDeadlineAfter(25, TimeUnit.SECONDS);
    // Not a Struct, whose numbers are doubles.
    String inputs = "{\"value\": " + value + "}";
    StartOutcome outcome =
        stub.startPrecompute(
                StartPrecomputeRequest.newBuilder()
                    .setKey(key)
                    .setCustom(CustomSpec.newBuilder().setPipeline("chain").setInputsJson(inputs))
                    .build())
            .getOutcome();
    if (outcome == StartOutcome.START_OUTCOME_UNSPECIFIED) {
      throw new IllegalStateException();
    }
    stub.watchResults(WatchResultsRequest.newBuilder().setKey(key).build())
        .forEachRemaining(state -> System.out.println(state.getResults().getStatus()));
    return stub.getResults(
        GetResultsRequest.newBuilder()
            .setKey(key)
            .setWait(Duration.newBuilder().setSeconds(20))
            .build());
  }
}
